"""Weights files: state dicts out of whatever training programs wrote, without running pickles."""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
import shlex
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regroup.errors import ConfigurationError, plain_line

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar")
# Where training programs put state dicts. An average of the weights comes before the weights.
AVERAGES = (
    "state_dict_ema", "model_ema", "ema_state_dict", "model_state_dict_ema", "ema_model", "ema",
    "params_ema",
)  # fmt: skip
PLAIN = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "module",
    "weights",
)  # fmt: skip
# Plain values that checkpoints hold beside tensors; unpickling them runs nothing of the file's.
_HARMLESS: list[Any] = [
    argparse.Namespace, pathlib.PosixPath, np.dtype, type(np.dtype(np.float64)),
    type(np.dtype(np.float32)), type(np.dtype(np.int64)), np.float64(0).__reduce__()[0],
]  # fmt: skip
_SAVE = (
    "from safetensors.torch import save_file; save_file({{k: v.contiguous().clone() for k, v in "
    "{state}.items() if torch.is_tensor(v)}}, {output})"
)

StateDict = Mapping[str, Any]


def read_state(path: Path) -> tuple[StateDict, dict[str, str], tuple[str, ...]]:
    """Return a file's state dict, its metadata, and notes on what was chosen.

    The kind is told by the content: safetensors, or what `torch.save` wrote.

    Raises:
        ConfigurationError: it holds neither.
    """
    with path.open("rb") as file:
        head = file.read(9)
    pickled = head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    named = path.suffix == SUFFIXES[0]
    size = int.from_bytes(head[:8], "little")
    if not pickled and (named or (head[8:] == b"{" and size < path.stat().st_size)):
        tensors, metadata = _read_safetensors(path)
        return tensors, metadata, ()
    state, notes = state_in(_unpickled(path), path)
    return state, {}, notes


def check_file(path: Path) -> None:
    """Raise ConfigurationError unless `path` is a file whose suffix is one of `SUFFIXES`."""
    if path.name.endswith(".index.json") or (path.is_dir() and any(path.glob("*.index.json"))):
        raise ConfigurationError(
            f"weights file {path}: these weights are in several files; join them into one, by "
            "load_file of safetensors.torch for each and save_file for all"
        )
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
        hint = f"such as {inside[0]}" if inside else f"with one of {', '.join(SUFFIXES)}"
        raise ConfigurationError(f"weights file {path} is a folder: give a file in it, {hint}")
    if not path.name.endswith(SUFFIXES):
        raise ConfigurationError(f"weights file {path}: expected one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ConfigurationError(f"weights file {path} does not exist")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        raise ConfigurationError(
            f"weights file {path} cannot be read: {plain_line(error)}: it is damaged or no "
            "safetensors file, so copy or save it again"
        ) from error


def _unpickled(path: Path) -> Any:
    """Read what `torch.save` wrote: tensors, containers and plain values, nothing else."""
    _refuse_archives(path)
    try:
        with (
            path.open("rb") as file,
            warnings.catch_warnings(),
            torch.serialization.safe_globals(_HARMLESS),
        ):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused_pickle(path) from error
    except Exception as error:  # damaged files raise many types
        raise ConfigurationError(
            f"weights file {path} is not a plain state dict of tensors: it is damaged or no file "
            "that torch.save wrote, so copy or save it again"
        ) from error


def _refused_pickle(path: Path) -> ConfigurationError:
    with path.open("rb") as file:
        head = file.read(2)
    if head[:1] != b"\x80" and head != b"PK":
        return ConfigurationError(
            f"weights file {path} is not a plain state dict of tensors: no program that is known "
            "here wrote it; save model.state_dict() with torch.save or safetensors"
        )
    load = (
        f'import pickle, torch; c = torch.load({json.dumps(str(path))}, "cpu", pickle); '
        'c = c.get("state_dict", c.get("model", c)) if isinstance(c, dict) else c; '
        "c = c if isinstance(c, dict) else c.state_dict(); "
    )
    return ConfigurationError(
        f"weights file {path} is not a plain state dict of tensors: objects of other kinds are "
        "pickled beside them, and unpickling those runs code, so it is not done here; if you "
        f"trust the file, convert it where its classes can be imported: {_command(load, 'c', path)}"
    )


def _refuse_archives(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    place = json.dumps(str(path))
    if any(name.endswith("/constants.pkl") for name in names):
        what, state = "a TorchScript archive", f'torch.jit.load({place}, "cpu").state_dict()'
    elif any(name.endswith("/archive_format") or "exported_program" in name for name in names):
        what, state = "an exported program", f"torch.export.load({place}).state_dict"
    elif not any(name.endswith("data.pkl") for name in names):
        raise ConfigurationError(
            f"weights file {path} is a zip of another kind, not of torch.save: give the file with "
            "the weights"
        )
    else:
        return
    raise ConfigurationError(
        f"weights file {path} is {what}, not a plain state dict of tensors: convert it by "
        f"{_command('import torch; ', state, path)}"
    )


def _command(before: str, state: str, path: Path) -> str:
    """Return the shell command that writes `state`, an expression, as safetensors."""
    output = json.dumps(str(path.with_suffix(SUFFIXES[0])))
    code = before + _SAVE.format(state=state, output=output)
    return f"python -c {shlex.quote(code)}"


def state_in(loaded: Any, path: Path) -> tuple[StateDict, tuple[str, ...]]:
    """Return the state dict in what a file holds, and a note where another was there too.

    Averaged weights (EMA) come before the weights that they are averages of.

    Raises:
        ConfigurationError: there is none, or which is meant cannot be told.
    """
    held = _containers(loaded)
    averages = [key for key in AVERAGES if key in held]
    pool = averages or [key for key in PLAIN if key in held]
    if len(pool) > 1:
        raise ConfigurationError(
            f"weights file {path} holds several state dicts ({', '.join(pool)}): save the one "
            "that you mean alone"
        )
    if pool:
        others = sorted(held.keys() - set(pool))
        note = f"weights file {path}: {pool[0]} is used, not {', '.join(others)}"
        state, notes = state_in(held[pool[0]], path)
        return state, (note, *notes) if others else notes
    tensors = _tensors(loaded)
    if not tensors:
        raise ConfigurationError(
            f"weights file {path} holds {type(loaded).__name__}, not a state dict of tensors: "
            "save model.state_dict() alone"
        )
    return tensors, ()


def _containers(loaded: Any, depth: int = 3) -> dict[str, Any]:
    """Return the members of a checkpoint, by known name, that hold tensors."""
    if not isinstance(loaded, Mapping) or not depth:
        return {}
    named = {key: loaded[key] for key in (*AVERAGES, *PLAIN) if key in loaded}
    return {
        key: value
        for key, value in named.items()
        if _tensors(value) or _containers(value, depth - 1)
    }


def _tensors(value: Any) -> dict[str, Any]:
    """Return the named members of a state dict, {} if none of them is a tensor."""
    if not isinstance(value, Mapping) or not any(isinstance(v, Tensor) for v in value.values()):
        return {}
    return {key: member for key, member in value.items() if isinstance(key, str)}
