"""How two classes fare as k grows, by the rule of the stored votes (docs/voting.md).

Only what the chart shows: points of a chosen class, as a share of the most that the last k taps can
give. Who wins is read from the votes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regroup.scoring import VOTING_SIGNS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from regroup_store.format.element import BlockElement

BORDA = "borda"
# Of the rule, of the chart, and how to read it.
WORDS = {
    BORDA: ("Borda", "Borda points", "share of the points that the last k taps can give"),
    "weighted-borda": (
        "weighted Borda",
        "Weighted Borda points",
        "share of the points that the last k taps can give, each tap by its weight",
    ),
    "plurality": ("plurality", "First choices", "share of the voters that rank the class first"),
    "copeland": ("Copeland", "Copeland points", "share of the other classes beaten; a tie is half"),
    "median-rank": ("median rank", "Median rank", "100 % is rank 1, 0 % the last rank"),
}


@dataclass(frozen=True)
class VotingRule:
    """How votes were counted: the rule's name, and (T,) weights of the taps where it has some."""

    name: str = BORDA
    weights: tuple[int, ...] | None = None
    tie_break: str = "class"

    def describe(self) -> dict[str, str]:
        """Words for the page."""
        name, chart, note = WORDS[self.name]
        ties = "smaller class index" if self.tie_break == "class" else "smaller summed divergence"
        return {"name": name, "chart": chart, "note": note, "ties": ties}


def rule_of(votes: BlockElement) -> VotingRule:
    """The rule that votes were scored by."""
    scoring: Any = votes.inputs["scoring"]
    weights = scoring.get("weights")
    return VotingRule(
        str(scoring.get("rule", BORDA)),
        None if weights is None else tuple(int(weight) for weight in weights),
        str(scoring.get("tie_break", "class")),
    )


def running_points(
    rule: VotingRule, before: list[NDArray[np.bool_]], chosen: NDArray[np.int64], signs: str
) -> NDArray[np.float64]:
    """Per cent of the most, (N, T), index k - 1 by the last k taps; of the (N,) `chosen` classes.

    before: of every tap, (N, 2, M): which classes each voter ranks before the chosen one.
    """
    voters, taps = list(VOTING_SIGNS[signs]), len(before)
    shares = np.zeros((len(chosen), taps))
    count = _COUNTS[rule.name](before[0].shape[2], chosen)
    for place, tap in enumerate(reversed(range(taps))):
        weight = 1 if rule.weights is None else rule.weights[tap]
        count.add(before[tap][:, voters], weight)
        shares[:, place] = 100 * count.share()
    return shares


class _Sum:
    """Points that add up over voters; `most`: what they add up to of a class that all put first."""

    def __init__(self, classes: int, chosen: NDArray[np.int64]) -> None:
        self._classes = classes
        self._sum, self._most = np.zeros(len(chosen)), 0

    def add(self, before: NDArray[np.bool_], weight: int) -> None:
        """Add a tap's voters, (N, V, M)."""
        self._sum += weight * self._points(1 + before.sum(axis=2)).sum(axis=1)
        self._most += weight * before.shape[1] * int(self._points(np.ones(1, np.int64))[0])

    def share(self) -> NDArray[np.float64]:
        """Of the most, (N,) in [0, 1]."""
        return self._sum / max(self._most, 1)

    def _points(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray(self._classes - ranks, np.int64)


class _First(_Sum):
    def _points(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray(ranks == 1, np.int64)


class _Majorities:
    def __init__(self, classes: int, chosen: NDArray[np.int64]) -> None:
        self._chosen = np.maximum(chosen, 0)
        self._margins = np.zeros((len(chosen), classes), np.int64)

    def add(self, before: NDArray[np.bool_], weight: int) -> None:
        """Add the voters that rank the chosen class before another, less those that do not."""
        del weight
        self._margins += (1 - 2 * before.astype(np.int64)).sum(axis=1)

    def share(self) -> NDArray[np.float64]:
        """Classes beaten, ties half, of all others."""
        points = 1 + np.sign(self._margins)
        rows = np.arange(len(self._chosen))
        others = points.sum(axis=1) - points[rows, self._chosen]
        return np.asarray(others / max(2 * (self._margins.shape[1] - 1), 1), np.float64)


class _Median:
    def __init__(self, classes: int, chosen: NDArray[np.int64]) -> None:
        del chosen
        self._classes = classes
        self._ranks: list[NDArray[np.int64]] = []

    def add(self, before: NDArray[np.bool_], weight: int) -> None:
        """Keep the ranks."""
        del weight
        self._ranks.append(1 + before.sum(axis=2))

    def share(self) -> NDArray[np.float64]:
        """How far the median is from the last rank."""
        middle = np.median(np.concatenate(self._ranks, axis=1), axis=1)
        return np.asarray((self._classes - middle) / max(self._classes - 1, 1), np.float64)


_COUNTS: dict[str, type[_Sum | _Majorities | _Median]] = {
    BORDA: _Sum,
    "weighted-borda": _Sum,
    "plurality": _First,
    "copeland": _Majorities,
    "median-rank": _Median,
}
