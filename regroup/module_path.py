"""Which module of a network is running: what taps are named after."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle


class ModulePath:
    """The module whose forward is running, tracked by hooks while this context is open.

    Args:
        model: the network whose modules are tracked.
        root_module: the module that paths are relative to; those of modules outside it are relative
            to `model`.
    """

    def __init__(self, model: nn.Module, root_module: nn.Module) -> None:
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._paths |= {id(module): path for path, module in root_module.named_modules()}
        self._model = model
        self._stack: list[nn.Module] = []
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> ModulePath:
        for module in self._model.modules():
            self._handles.append(module.register_forward_pre_hook(self._enter, prepend=True))
            self._handles.append(module.register_forward_hook(self._leave, always_call=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def name(self, label: str) -> str:
        """Return a file-safe name for a call at this point of the forward pass.

        The running module's path, followed by `label` if the module is not a leaf or has no path.
        """
        module = self._stack[-1]
        path = self._paths[id(module)]
        if not path or next(module.children(), None) is not None:
            path = f"{path}.{label}".lstrip(".")
        return re.sub(r"[^A-Za-z0-9._-]", "_", path)

    def _enter(self, module: nn.Module, _inputs: object) -> None:
        self._stack.append(module)

    def _leave(self, _module: nn.Module, _inputs: object, _output: object) -> None:
        self._stack.pop()
