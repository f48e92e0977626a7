"""Accuracies from stored votes: counts over every group of samples that a table needs.

The groups are `all` (readable samples: attempted), `success` (#S, where the attack succeeded)
and `correct` (softmax is right). Knows NumPy and the store only: no network, no Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regroup.bank import SIGN_CHOICES
from regroup.choose_k import KChoice, choose_k
from regroup.intervals import wilson
from regroup_store.format.element import BlockElement
from regroup_store.kinds.votes import TAP_TRUE_RANK, TRUE_RANK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from regroup_store.format.element import BlockElement

_COLUMNS = ["sample_id", "status", "label", "prediction", "top5_correct", "success"]


@dataclass(frozen=True, eq=False)
class VoteRows:
    """A block of votes: a value a sample, and ranks of its true class (samples, signs, k or tap).

    Attributes:
        ok: whether the sample has votes.
        success: True, False or None (not attacked), as objects.
    """

    sample_id: NDArray[np.str_]
    ok: NDArray[np.bool_]
    success: NDArray[np.object_]
    right: NDArray[np.bool_]
    top5: NDArray[np.bool_]
    true_rank: NDArray[np.int32]
    tap_true_rank: NDArray[np.int32]

    def counts(self, mask: NDArray[np.bool_]) -> dict[str, Any]:
        """One group of `summarise`: the samples in `mask`."""
        counts: dict[str, Any] = {
            "n": int(mask.sum()),
            "softmax_top1": int((self.right & mask).sum()),
            "softmax_top5": int((self.top5 & mask).sum()),
        }
        for prefix, ranks in (("", self.true_rank[mask]), ("tap_", self.tap_true_rank[mask])):
            for top in (1, 5):
                hits = (ranks <= top).sum(axis=0)
                counts[f"{prefix}top{top}"] = {
                    signs: hits[s].astype(int) for s, signs in enumerate(SIGN_CHOICES)
                }
        return counts

    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """The samples of every group that a table needs."""
        return {
            "all": self.ok,
            "success": self.ok & (self.success == True),  # noqa: E712 - None where not attacked
            "correct": self.ok & self.right,
        }


def vote_rows(votes: BlockElement) -> Iterator[VoteRows]:
    """The rows of votes, a block at a time."""
    for block in range(votes.plan.blocks):
        read = votes.read_table(block, _COLUMNS).to_pydict()
        table = {name: np.array(values) for name, values in read.items()}
        yield VoteRows(
            table["sample_id"],
            table["status"] == "ok",
            np.array(read["success"], object),
            table["prediction"] == table["label"],
            table["top5_correct"].astype(bool),
            votes.read_array(TRUE_RANK, block),
            votes.read_array(TAP_TRUE_RANK, block),
        )


def summarise(votes: BlockElement) -> dict[str, Any]:
    """Counts over all blocks of a votes element, as plain JSON; memory flat in its samples.

    Returns:
        `failed`: rows without votes; per group `n`, `softmax_top1`, `softmax_top5`, and per sign
        choice `top1`, `top5` (a count for every k from 1) and `tap_top1`, `tap_top5` (a count
        for every tap alone, in execution order).
    """
    groups: dict[str, dict[str, Any]] = {}
    failed, attacked = 0, False
    for rows in vote_rows(votes):
        failed += int((~rows.ok).sum())
        attacked |= bool((rows.success != None).any())  # noqa: E711 - an object array
        for group, mask in rows.groups().items():
            add_counts(groups.setdefault(group, {}), rows.counts(mask))
    return {"failed": failed, "attacked": attacked, **groups}


def add_counts(total: dict[str, Any], part: dict[str, Any]) -> None:
    """Add what `VoteRows.counts` gives to a total, which becomes plain JSON."""
    for key, value in part.items():
        if isinstance(value, dict):
            add_counts(total.setdefault(key, {}), value)
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


def rule_of_k(clean: dict[str, Any], threshold: float) -> KChoice:
    """k by the 75 % rule, from the summary of clean votes (paper, section 3.2; DESIGN §3)."""
    return choose_k(tap_accuracy(clean, "correct"), threshold)


def accuracy_row(name: str, summary: dict[str, Any], k: int, signs: str) -> dict[str, Any]:
    """One row of the accuracy table: attempted, #S, and softmax and REGroup over both groups."""
    groups = {"all": "all"} | ({"success": "S"} if summary["attacked"] else {})
    return {
        "images": name,
        "attempted": summary["all"]["n"],
        "failed": summary["failed"],
        "success": summary["success"]["n"] if summary["attacked"] else None,
        "k": k,
        "signs": signs,
        **accuracy_cells(summary, groups, k, signs),
    }


def accuracy_cells(
    summary: dict[str, Any], groups: Mapping[str, str], k: int, signs: str
) -> dict[str, Any]:
    """Softmax and REGroup, top-1 and top-5, over each group; `groups`: what cells call it."""
    cells: dict[str, Any] = {}
    for group, label in groups.items():
        for top in (1, 5):
            soft = softmax_accuracy(summary, group, top)
            ours = regroup_accuracy(summary, group, k, signs, top)
            cells[f"softmax_top{top}_{label}"] = soft.describe()
            cells[f"regroup_top{top}_{label}"] = ours.describe()
    return cells


def k_rows(
    summaries: dict[str, dict[str, Any]], ks: list[int], signs: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Rows of the table of accuracy against k and signs: over #S where attacked, else over all."""
    return [
        {
            "k": k,
            "signs": choice,
            **{
                name: regroup_accuracy(
                    s, "success" if s["attacked"] else "all", k, choice
                ).describe()
                for name, s in summaries.items()
            },
        }
        for choice in signs
        for k in ks
    ]
