"""What a network keeps beside its parameters and buffers: tensors, numbers, settings; hashed.

Parameters and persistent buffers are its weights, and hashed as those.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType, CellType, FunctionType, MethodType

import numpy as np
import torch
from torch import Tensor, nn

from regroup.models.weights import tensor_bytes

_OF_TORCH = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_PLAIN = (bool, int, float, complex, str, bytes, enum.Enum, torch.dtype, torch.device, range, slice)
_WITH_CODE = (torch.jit.ScriptModule, torch.fx.GraphModule)


@dataclass
class Attributes:
    """The attributes of every part of a network.

    Attributes:
        network: the network, in the state in which it was built.
        own: whether a module's name is one of the user's project.
        modules: names of the modules that its parts, and functions that they keep, come from.
        digests: attribute ("head.scale") -> sha256.
    """

    network: nn.Module
    own: Callable[[str], bool]
    modules: set[str] = field(default_factory=set)
    digests: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._within: list[int] = []
        self._parts = {id(part): name for name, part in self.network.named_modules()}
        for name, part in self.network.named_modules():
            self.modules |= {base.__module__ for base in type(part).__mro__}
            for attribute, value in self._kept(part):
                found = hashlib.sha256(self._encoded(value)).hexdigest()
                self.digests[f"{name}.{attribute}".lstrip(".")] = found

    @property
    def sha256(self) -> str:
        """The digest of all of them, 64 hex characters."""
        lines = (f"{name} {found}\n" for name, found in sorted(self.digests.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _kept(self, part: nn.Module) -> Iterator[tuple[str, object]]:
        """Yield a part's own attributes; of installed classes not the private ones.

        Those change from release to release without a meaning for the result.
        """
        own = self.own(type(part).__module__)
        for name, value in vars(part).items():
            if name not in _OF_TORCH and (own or not name.startswith("_")):
                yield name, value
        for name in sorted(getattr(part, "_non_persistent_buffers_set", ())):
            yield name, getattr(part, name, None)
        for name in _HOOKS:
            if hooks := getattr(part, name, None):
                yield name, list(hooks.values())
        if isinstance(part, _WITH_CODE):
            yield "code", getattr(part, "code", None)

    def _encoded(self, value: object) -> bytes:
        """Return bytes that tell values apart, alike in every process."""
        if isinstance(value, Tensor):
            return b"".join(map(bytes, tensor_bytes("", value)))
        if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
            return f"{value.dtype.str} {value.shape} ".encode() + value.tobytes()
        if value is None or isinstance(value, _PLAIN):
            return f"{type(value).__qualname__} {value!r}".encode()
        if id(value) in self._within:
            return b"a part of itself"
        self._within.append(id(value))
        try:
            return self._composed(value)
        finally:
            self._within.pop()

    def _composed(self, value: object) -> bytes:
        name = type(value).__qualname__
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, Mapping):
            return self._joined(name, [each for pair in value.items() for each in pair])
        if isinstance(value, list | tuple):
            return self._joined(name, value)
        if isinstance(value, set | frozenset):
            return self._joined(name, sorted(map(self._encoded, value)))
        if isinstance(value, nn.Module):
            return self._module(value)
        if callable(value) and not isinstance(value, type):
            return self._callable(value)
        return self._object(value)

    def _joined(self, name: str, values: Sequence[object]) -> bytes:
        found = [hashlib.sha256(self._encoded(value)).digest() for value in values]
        return b"".join([f"{name} {len(found)} ".encode(), *found])

    def _module(self, module: nn.Module) -> bytes:
        """Describe a module: its name where it is a part, else (in a plain list) its content."""
        if id(module) in self._parts:
            return f"part {self._parts[id(module)]}".encode()
        inner = Attributes(module, self.own)
        self.modules |= inner.modules
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        return self._joined(kind, [dict(module.state_dict()), inner.digests])

    def _callable(self, value: Callable[..., object]) -> bytes:
        if isinstance(value, functools.partial):
            return self._joined("partial", [value.func, value.args, value.keywords])
        if isinstance(value, MethodType):
            return self._joined("method", [value.__func__, value.__self__])
        name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
        if isinstance(value, FunctionType):
            self.modules.add(value.__module__)
            cells = [each.cell_contents for each in value.__closure__ or () if _filled(each)]
            return self._joined(name, [value.__defaults__, value.__kwdefaults__, cells])
        if isinstance(value, BuiltinFunctionType):
            return name.encode()
        return self._object(value)

    def _object(self, value: object) -> bytes:
        """Describe a class by its name, and an object of the project's classes by what it holds."""
        kind = value if isinstance(value, type) else type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        self.modules.add(kind.__module__)
        plain = self.own(kind.__module__) or kind.__name__ in ("SimpleNamespace", "Namespace")
        if kind is value or not (plain or dataclasses.is_dataclass(value)):
            return name.encode()
        return self._joined(name, [_content(value)])


def _content(value: object) -> dict[str, object]:
    """Return what an object holds, by name."""
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        names = getattr(kind, "__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def _filled(cell: CellType) -> bool:
    """Return whether a closure's cell has a value."""
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
