"""Which tensor of a weights file belongs to which name of a network."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from torch import Tensor

from regroup.errors import ConfigurationError, plain_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from regroup.models.checkpoints import StateDict

# Names that wrappers add anywhere: torch.compile, DataParallel, FSDP, activation checkpoints.
_WRAPPERS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_AVERAGED = "n_averaged"  # beside the `module.` of torch.optim.swa_utils.AveragedModel
_COUNTER = "num_batches_tracked"  # files of before torch 0.4.1 lack it, and nothing reads it


def matched(
    expected: StateDict, given: StateDict, source: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the tensors of a file under the network's names, and notes on what was left out.

    Names of wrappers do not count, on either side. The names may lie behind any prefix (`model.`,
    `net.backbone.`) that fits all of the network's; of several the averaged weights (`ema`).
    Tensors behind no or another prefix are then left out.

    Args:
        expected: the network's state dict.
        given: the file's.
        source: the file, for messages.

    Raises:
        ConfigurationError: several prefixes fit.
    """
    needed = [key for key in expected if not key.endswith(_COUNTER)]
    if all(key in given for key in needed):
        return dict(given), ()
    names, bare = _bare(expected), _bare(given)
    tensors = {name: given[key] for name, key in bare.items() if key != _AVERAGED}
    wanted = {name: expected[key] for name, key in names.items() if not key.endswith(_COUNTER)}
    prefix, notes = _prefix(wanted, tensors, source)
    behind = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    if left := [key for key in tensors if not key.startswith(prefix)]:
        notes = (*notes, f"{source}: the tensors behind {prefix}* are used, not {shown(left)}")
    return {names.get(name, name): tensor for name, tensor in behind.items()}, notes


def _bare(keys: StateDict) -> dict[str, str]:
    """Return the keys by their names without wrappers; as they are where two become one."""
    own = {key: [part for part in key.split(".") if part not in _WRAPPERS] for key in keys}
    names = {".".join(parts): key for key, parts in own.items()}
    return names if len(names) == len(keys) else {key: key for key in keys}


def _prefix(
    wanted: Mapping[str, Any], tensors: Mapping[str, Any], source: str
) -> tuple[str, tuple[str, ...]]:
    found = Counter(prefix for key in tensors for prefix in _prefixes(key, wanted))
    whole = [prefix for prefix, count in found.items() if count == len(wanted)]
    if len(whole) > 1:
        whole = [p for p in whole if all(_alike(t, tensors[p + n]) for n, t in wanted.items())]
    averages = [prefix for prefix in whole if "ema" in prefix.lower()]
    if "" in whole or not whole:
        return ("" if "" in whole or not found else found.most_common(1)[0][0]), ()
    if len(whole) > 1 and len(averages) != 1:
        places = plain_line(", ".join(f"{prefix}*" for prefix in sorted(whole)))
        raise ConfigurationError(
            f"weights file {source} holds the network several times, behind {places}: save the one "
            "that you mean alone"
        )
    return (averages or whole)[0], ()


def _prefixes(key: str, wanted: Mapping[str, Any]) -> Iterator[str]:
    """What stands in `key` before a name of the network, "" included."""
    parts = key.split(".")
    for start in range(len(parts)):
        if ".".join(parts[start:]) in wanted:
            yield "".join(f"{part}." for part in parts[:start])


def _alike(one: Any, other: Any) -> bool:
    return not isinstance(one, Tensor) or (isinstance(other, Tensor) and one.shape == other.shape)


def head_classes(expected: StateDict, given: StateDict, classes: int) -> int | None:
    """Return the number of classes of a file that differs from the network in that alone.

    That is: all tensors of another shape have another axis 0 than `classes`, all the same.
    """
    pairs = set()
    for key, tensor in expected.items():
        other = given.get(key)
        if _alike(tensor, other) or not isinstance(other, Tensor):
            continue
        if not other.dim() or not tensor.dim() or tensor.shape[1:] != other.shape[1:]:
            return None
        pairs.add((tensor.shape[0], other.shape[0]))
    usual, found = next(iter(pairs)) if len(pairs) == 1 else (0, 0)
    return found if usual == classes and found > 1 else None


def shown(names: list[str], limit: int = 3) -> str:
    """Return the first few names."""
    few = plain_line(", ".join(names[:limit]))
    return few if len(names) <= limit else f"{few} and {len(names) - limit} more"
