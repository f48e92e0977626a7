"""Accuracies from stored votes: counts over every group of samples that a table needs.

The groups are `all` (readable samples: attempted), `success` (#S, where the attack succeeded)
and `correct` (softmax is right). Knows NumPy and the store only: no network, no Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regroup.bank import SIGN_CHOICES
from regroup.intervals import wilson
from store.votes import TAP_TRUE_RANK, TRUE_RANK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.element import BlockElement

_COLUMNS = ["status", "label", "prediction", "top5_correct", "success"]


def summarise(votes: BlockElement) -> dict[str, Any]:
    """Counts over all blocks of a votes element, as plain JSON; memory flat in its samples.

    Returns:
        `failed`: rows without votes; per group `n`, `softmax_top1`, `softmax_top5`, and per sign
        choice `top1`, `top5` (a count for every k from 1) and `tap_top1`, `tap_top5` (a count
        for every tap alone, in execution order).
    """
    groups: dict[str, dict[str, Any]] = {}
    failed, attacked = 0, False
    for block in range(votes.plan.blocks):
        table = {k: np.array(v) for k, v in votes.read_table(block, _COLUMNS).to_pydict().items()}
        ok = table["status"] == "ok"
        failed += int((~ok).sum())
        attacked |= bool((table["success"] != None).any())  # noqa: E711 - an object array
        ranks = votes.read_array(TRUE_RANK, block), votes.read_array(TAP_TRUE_RANK, block)
        for group, mask in _masks(table, ok).items():
            _add(groups.setdefault(group, {}), _counts(table, mask, *ranks))
    return {"failed": failed, "attacked": attacked, **groups}


def _masks(table: dict[str, NDArray[Any]], ok: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    return {
        "all": ok,
        "success": ok & (table["success"] == True),  # noqa: E712 - None where not attacked
        "correct": ok & (table["prediction"] == table["label"]),
    }


def _counts(
    table: dict[str, NDArray[Any]],
    mask: NDArray[np.bool_],
    true_rank: NDArray[np.int32],
    tap_true_rank: NDArray[np.int32],
) -> dict[str, Any]:
    right = table["prediction"] == table["label"]
    counts: dict[str, Any] = {
        "n": int(mask.sum()),
        "softmax_top1": int((right & mask).sum()),
        "softmax_top5": int((table["top5_correct"].astype(bool) & mask).sum()),
    }
    for prefix, ranks in (("", true_rank[mask]), ("tap_", tap_true_rank[mask])):
        for top in (1, 5):
            hits = (ranks <= top).sum(axis=0)
            counts[f"{prefix}top{top}"] = {
                signs: hits[s].astype(int) for s, signs in enumerate(SIGN_CHOICES)
            }
    return counts


def _add(total: dict[str, Any], part: dict[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, dict):
            _add(total.setdefault(key, {}), value)
        elif isinstance(value, np.ndarray):
            total[key] = (np.array(total.get(key, 0)) + value).tolist()
        else:
            total[key] = total.get(key, 0) + value


@dataclass(frozen=True)
class Accuracy:
    """A share with its 95 % Wilson interval, all in [0, 1]."""

    correct: int
    total: int

    @property
    def value(self) -> float | None:
        """The share, or None over nothing."""
        return self.correct / self.total if self.total else None

    def describe(self) -> dict[str, Any]:
        """Plain JSON: correct, total, accuracy and its interval."""
        low, high = wilson(self.correct, self.total)
        return {
            "correct": self.correct,
            "total": self.total,
            "accuracy": self.value,
            "interval95": [low, high],
        }

    def __str__(self) -> str:
        if self.value is None:
            return "not run"
        low, high = wilson(self.correct, self.total)
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def softmax_accuracy(summary: dict[str, Any], group: str, top: int = 1) -> Accuracy:
    """The network's own accuracy over a group."""
    return Accuracy(summary[group][f"softmax_top{top}"], summary[group]["n"])


def regroup_accuracy(
    summary: dict[str, Any], group: str, k: int, signs: str, top: int = 1
) -> Accuracy:
    """REGroup's accuracy over a group, with the last `k` taps and a sign choice."""
    return Accuracy(summary[group][f"top{top}"][signs][k - 1], summary[group]["n"])


def tap_accuracy(summary: dict[str, Any], group: str, signs: str = "both") -> NDArray[np.float64]:
    """Accuracy of every tap alone over a group, (T,) float64; zeros over nothing."""
    hits = np.array(summary[group]["tap_top1"][signs], np.float64)
    accuracy: NDArray[np.float64] = hits / max(summary[group]["n"], 1)
    return accuracy
