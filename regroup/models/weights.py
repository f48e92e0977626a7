"""Weights files: read without pickle, checked against the architecture, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from regroup.errors import ConfigurationError
from regroup.models.spec import RANDOM_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SUFFIXES = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True)
class Weights:
    """A state dict, the sha256 of the file's bytes and the file's own metadata."""

    source: str
    tensors: Mapping[str, Tensor]
    sha256: str
    metadata: Mapping[str, str] = field(default_factory=dict)


def is_file_name(weights: str) -> bool:
    """Return whether `weights` names a file rather than a member of a weights enum."""
    return weights.endswith(SUFFIXES) or os.sep in weights


def read_weights(path: str | Path) -> Weights:
    """Read a .safetensors file, or a .pth/.pt state dict with `weights_only=True`.

    Raises:
        ConfigurationError: the file does not exist, has another suffix, is damaged, or is not a
            state dict.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(f"weights file {path}: expected one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ConfigurationError(f"weights file {path} does not exist")
    tensors, metadata = _read_safetensors(path) if path.suffix == SUFFIXES[0] else _read_pth(path)
    return Weights(str(path), tensors, file_sha256(path), metadata)


def file_sha256(path: Path) -> str:
    """Return the sha256 over the bytes of a file, 64 hex characters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConfigurationError(f"weights file {path} cannot be read: {error}") from error


def _read_pth(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigurationError(
            f"weights file {path} is not a plain state dict of tensors: {reason}"
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ConfigurationError(
            f"weights file {path} holds {type(loaded).__name__}, not a state dict of tensors: "
            "save model.state_dict() alone"
        )
    return dict(loaded), {}


def state_sha256(network: nn.Module) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes of all tensors of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def build_seeded(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a network whose random initial weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory()


def load_into(network: nn.Module, weights: Weights, model: str) -> None:
    """Copy `weights` into `network`.

    Raises:
        ConfigurationError: the weights are of another architecture than `model`.
    """
    expected = network.state_dict()
    missing = [k for k in expected if k not in weights.tensors and "num_batches_tracked" not in k]
    unexpected = [key for key in weights.tensors if key not in expected]
    shapes = [
        f"{key} is {tuple(tensor.shape)} instead of {tuple(expected[key].shape)}"
        for key, tensor in weights.tensors.items()
        if key in expected and tensor.shape != expected[key].shape
    ]
    parts = (("missing", missing), ("unexpected", unexpected), ("shapes", shapes))
    found = "; ".join(f"{what}: {_few(names)}" for what, names in parts if names)
    if found:
        raise ConfigurationError(
            f"weights file {weights.source} does not fit {model}: {found}. "
            "Give the weights of this architecture, or the name of the model they belong to"
        )
    network.load_state_dict(dict(weights.tensors), strict=False)


def _few(names: list[str], limit: int = 3) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def file_or_random(network: nn.Module, weights: str | None, model: str) -> tuple[str, Weights]:
    """Load the named file into `network`, or keep its random weights.

    Returns:
        The sha256, and the weights that were read.

    Raises:
        ConfigurationError: neither a file nor random weights were requested.
    """
    if weights is None:
        raise ConfigurationError(
            f"{model} needs weights: give a file ({', '.join(SUFFIXES)}), "
            f"or {RANDOM_WEIGHTS!r} for an untrained network"
        )
    if weights == RANDOM_WEIGHTS:
        return state_sha256(network), Weights(RANDOM_WEIGHTS, {}, "")
    read = read_weights(weights)
    load_into(network, read, model)
    return read.sha256, read


def save_weights(module: nn.Module, path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write a module's state dict as safetensors: the same bytes for the same weights, atomically.

    The library writes the metadata in an order that changes from run to run, which would change the
    file's sha256: the header is rewritten, sorted.
    """
    from safetensors.torch import save

    tensors = {
        key: tensor.detach().cpu().contiguous() for key, tensor in module.state_dict().items()
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
