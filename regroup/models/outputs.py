"""The logits in what a classifier returns: a tensor, `.logits`, a tuple's or a dictionary's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from regroup.errors import ConfigurationError, plain_line

# What logits are called in dictionaries, besides "logits" itself.
_KEYS = frozenset({"out", "output", "outputs", "pred", "preds", "prediction", "predictions"})


def logits_of(output: object, sample_count: int) -> Tensor:
    """Return the logits (N, M) in a classifier's output, dense and not quantised.

    That is a tensor itself; the attribute `logits`; of a tuple or list the first tensor of that
    shape; of a dictionary "logits", else its only tensor of that shape, else the one that is
    called as outputs are ("out", "output", "pred").

    Raises:
        ConfigurationError: there is no tensor of shape (`sample_count`, M), or which is meant
            cannot be told.
    """
    parts = _parts(output)
    fitting = {key: part for key, part in parts.items() if _fits(part, sample_count)}
    if isinstance(output, Mapping) and len(fitting) > 1 and "logits" not in fitting:
        return _plain(fitting[_only_key(fitting)])
    if not fitting:
        raise ConfigurationError(
            f"the model returned {_shown(output, parts)} for {sample_count} samples where logits "
            f"of shape ({sample_count}, classes) are needed: wrap it so that it returns those"
        )
    return _plain(fitting["logits"] if "logits" in fitting else next(iter(fitting.values())))


def several_outputs(output: object, sample_count: int) -> str | None:
    """Say of a tuple with several tensors that could be logits which of them is taken."""
    if not isinstance(output, tuple | list) or isinstance(getattr(output, "logits", None), Tensor):
        return None
    shapes = [tuple(part.shape) for part in output if _fits(part, sample_count)]
    if len(shapes) < 2:
        return None
    return (
        f"returns {len(shapes)} tensors that could be logits ({', '.join(map(str, shapes))}): the "
        "first is taken; return the logits alone if it is another"
    )


def _parts(output: object) -> dict[str, object]:
    """Return the candidates by their key; "" for an output that is one thing."""
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return {"logits": logits}
    if isinstance(output, Mapping):
        return {str(key): part for key, part in output.items()}
    if isinstance(output, tuple | list):
        return {str(position): part for position, part in enumerate(output)}
    return {"": output}


def _fits(part: object, sample_count: int) -> bool:
    return isinstance(part, Tensor) and part.dim() == 2 and part.shape[0] == sample_count


def _only_key(fitting: Mapping[str, object]) -> str:
    named = [key for key in fitting if key.lower() in _KEYS]
    if len(named) != 1:
        raise ConfigurationError(
            f"the model returned a dictionary in which {plain_line(', '.join(sorted(fitting)))} "
            'could each be the logits: call them "logits", or return them alone'
        )
    return named[0]


def _shown(output: object, parts: Mapping[str, object]) -> str:
    """Return the type of an output, and the shape or type of each of its parts."""
    each = {
        key: str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__
        for key, part in parts.items()
    }
    if isinstance(output, Tensor):
        return each[""]
    if isinstance(output, Mapping):
        each = {key: f"{key}: {part}" for key, part in each.items()}
    inside = plain_line(", ".join(each.values()))
    kind = type(output).__name__
    return kind if inside in ("", kind) else f"{kind} ({inside})"


def _plain(logits: object) -> Tensor:
    assert isinstance(logits, Tensor)
    if logits.is_quantized:
        return logits.dequantize()
    return logits if logits.layout == torch.strided else logits.to_dense()
