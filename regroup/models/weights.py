"""Weights files: read without pickle, checked against the architecture, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from regroup.errors import ConfigurationError, plain_line
from regroup.models.checkpoints import SUFFIXES, check_file, read_state
from regroup.models.spec import RANDOM_WEIGHTS, is_named
from regroup.models.state_names import head_classes, matched, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regroup.models.spec import ModelSpec


@dataclass(frozen=True)
class Weights:
    """A state dict, the sha256 of the file's bytes, its own metadata, and notes for the log."""

    source: str
    tensors: Mapping[str, Any]
    sha256: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def is_file_name(weights: str) -> bool:
    """Return whether `weights` names a file rather than a member of a weights enum."""
    return weights.endswith(SUFFIXES) or os.sep in weights


def read_weights(path: str | Path) -> Weights:
    """Read a safetensors file, or what `torch.save` wrote (with `weights_only=True`).

    Raises:
        ConfigurationError: the file does not exist, has another suffix, is damaged, or holds no
            state dict.
    """
    path = Path(path)
    check_file(path)
    try:
        tensors, metadata, notes = read_state(path)
        return Weights(str(path), tensors, file_sha256(path), metadata, notes)
    except OSError as error:
        raise ConfigurationError(
            f"weights file {path} cannot be read: {error.strerror or plain_line(error)}"
        ) from error


def file_sha256(path: Path) -> str:
    """Return the sha256 over the bytes of a file, 64 hex characters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_sha256(network: nn.Module) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes of all members of a state dict.

    Raises:
        ConfigurationError: a member is neither a tensor nor made of tensors and plain values.
    """
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        for part in member_bytes(name, value):
            digest.update(part)
    return digest.hexdigest()


def member_bytes(name: str, value: Any) -> Iterator[Any]:
    """Yield bytes that determine a member of a state dict: a tensor, or a quantised layer's."""
    if isinstance(value, Tensor):
        yield from tensor_bytes(name, value)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from member_bytes(f"{name}.{key}", value[key])
    elif isinstance(value, tuple | list):
        for position, member in enumerate(value):
            yield from member_bytes(f"{name}.{position}", member)
    elif value is None or isinstance(value, str | bytes | int | float | torch.dtype | torch.Size):
        yield f"{name} {value!r}\n".encode()
    else:
        raise ConfigurationError(
            f"the state of the network has {name} of type {type(value).__name__}, which cannot be "
            "compared from run to run: keep tensors and numbers in its state_dict"
        )


def tensor_bytes(name: str, tensor: Tensor) -> Iterator[Any]:
    """Yield bytes that determine a tensor of any kind, its name first.

    Raises:
        ConfigurationError: its values cannot be read.
    """
    try:
        kind = f"{name} {tensor.dtype} {tuple(tensor.shape)}"
        if tensor.layout != torch.strided:
            kind, tensor = f"{kind} {tensor.layout}", tensor.to_dense()
        if tensor.is_quantized:
            kind, tensor = f"{kind} {tensor.qscheme()} {tensor.dequantize()}", tensor.int_repr()
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        yield f"{kind}\n".encode()
        yield plain.view(torch.uint8).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise ConfigurationError(
            f"the network's tensor {name} ({type(tensor).__name__}) cannot be read: "
            f"{plain_line(error)}: make it a plain tensor"
        ) from error


def build_seeded(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a network whose random initial weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory()


def load_into(network: nn.Module, weights: Weights, model: str) -> Weights:
    """Copy `weights` into `network`; return them with notes on what was chosen of the file.

    Raises:
        ConfigurationError: the weights are of another architecture than `model`.
    """
    expected = network.state_dict()
    given, notes = matched(expected, weights.tensors, weights.source)
    parts = (
        ("missing", [k for k in expected if k not in given and "num_batches_tracked" not in k]),
        ("unexpected", [k for k, t in given.items() if k not in expected and _is_tensor(t)]),
        ("shapes", [each for k in expected if (each := _unlike(k, expected[k], given.get(k)))]),
    )
    if found := "; ".join(f"{what}: {shown(names)}" for what, names in parts if names):
        raise ConfigurationError(
            f"weights file {weights.source} does not fit {model}: {found}. "
            f"{_advice(expected, given, model)}"
        )
    plain = {key: _dense(t, expected[key]) for key, t in given.items() if key in expected}
    try:
        network.load_state_dict(plain, strict=False)
    except RuntimeError as error:  # tensors of a kind of their own, such as torch's DTensor
        raise ConfigurationError(
            f"weights file {weights.source} holds tensors that {model} cannot take "
            f"({' and '.join(sorted({type(t).__name__ for t in plain.values()}))}), as a job on "
            "several machines saves them: save a full state dict of plain tensors there"
        ) from error
    return replace(weights, notes=(*weights.notes, *notes))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _unlike(key: str, expected: Any, given: Any) -> str:
    """Say how a tensor of a file differs from the network's in kind; "" if it fits."""
    if not (_is_tensor(expected) and _is_tensor(given)):
        return ""
    if given.shape != expected.shape:
        return f"{key} is {tuple(given.shape)} instead of {tuple(expected.shape)}"
    if given.is_meta:
        return f"{key} has no values (meta device)"
    whole = not expected.is_floating_point()
    if whole == given.is_floating_point() and "num_batches_tracked" not in key:
        return f"{key} is {given.dtype} instead of {expected.dtype}"
    return ""


def _dense(given: Any, expected: Any) -> Any:
    both = _is_tensor(given) and _is_tensor(expected)
    sparse = both and given.layout != torch.strided and expected.layout == torch.strided
    return given.to_dense() if sparse else given


def _advice(expected: Mapping[str, Any], given: Mapping[str, Any], model: str) -> str:
    sizes = {t.shape[0] for t in expected.values() if _is_tensor(t) and t.dim()}
    found = {each for size in sizes if (each := head_classes(expected, given, size))}
    if found:
        own = "" if is_named(model) else ", and have the factory take num_classes"
        return f"It has another number of classes: give --num-classes {found.pop()}{own}"
    return "Give the weights of this architecture, or the name of the model they belong to"


def file_or_random(network: nn.Module, weights: str | None, model: str) -> tuple[str, Weights]:
    """Load the named file into `network`, or keep its random weights.

    Returns:
        The sha256, and the weights that were read.

    Raises:
        ConfigurationError: neither a file nor random weights were requested.
    """
    read = _named(weights, model)
    if read is None:
        return state_sha256(network), Weights(RANDOM_WEIGHTS, {}, "")
    read = load_into(network, read, model)
    return read.sha256, read


def built_to_fit(
    make: Callable[[int], nn.Module], spec: ModelSpec, usual: int, weights: str | None
) -> tuple[nn.Module, int, Weights]:
    """Build a network of as many classes as its weights file has, and load that.

    Args:
        make: builds the network for a number of classes.
        spec: of the classifier; its `num_classes`, if given, is the number.
        usual: the number of classes of a file that does not say another.
        weights: the file, or "random".

    Returns:
        The network, its number of classes, and the weights (of random ones the sha256 alone).

    Raises:
        ConfigurationError: the file is not of this architecture, or no weights were requested.
    """
    classes = spec.num_classes or usual
    network = build_seeded(lambda: make(classes), spec.seed)
    return fitted(network, classes, make, spec, _named(weights, spec.name))


def fitted(
    network: nn.Module,
    classes: int,
    make: Callable[[int], nn.Module],
    spec: ModelSpec,
    read: Weights | None,
) -> tuple[nn.Module, int, Weights]:
    """Load weights that were read into `network` of `classes`, built anew if they have others.

    Args and returns are those of `built_to_fit`; None for `read` keeps the random weights.
    """
    if read is None:
        return network, classes, Weights(RANDOM_WEIGHTS, {}, state_sha256(network))
    state = network.state_dict()
    given, _ = matched(state, read.tensors, read.source)
    own = None if spec.num_classes else head_classes(state, given, classes)
    if own is not None:
        network = build_seeded(lambda: make(own), spec.seed)
        note = f"weights file {read.source} is of {own} classes, not the usual {classes}"
        read = replace(read, notes=(*read.notes, note))
    return network, own or classes, load_into(network, read, spec.name)


def read_or_random(weights: str) -> Weights | None:
    """Return what a weights file holds; None for "random"."""
    return None if weights == RANDOM_WEIGHTS else read_weights(weights)


def _named(weights: str | None, model: str) -> Weights | None:
    """Return what the named file holds, None for random weights."""
    if weights is None:
        raise ConfigurationError(
            f"{model} needs weights: give a file ({', '.join(SUFFIXES)}), "
            f"or {RANDOM_WEIGHTS!r} for an untrained network"
        )
    return read_or_random(weights)


def save_weights(module: nn.Module, path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write a module's state dict as safetensors: the same bytes for the same weights, atomically.

    The library writes the metadata in an order that changes from run to run, which would change the
    file's sha256: the header is rewritten, sorted.
    """
    from safetensors.torch import save

    # Clones: the library refuses tensors that share memory, as tied weights do.
    tensors = {
        key: tensor.detach().cpu().contiguous().clone()
        for key, tensor in module.state_dict().items()
    }
    _write_atomically(Path(path), _with_sorted_header(save(tensors, dict(metadata))))


def _with_sorted_header(data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":"))
    padded = header.encode() + b" " * (-len(header.encode()) % 8)
    return len(padded).to_bytes(8, "little") + padded + data[8 + size :]


def _write_atomically(path: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
