"""Points of a class as k grows, by the rule of the stored votes (docs/voting.md).

They are for the explorer's chart only, as a share of the maximum that the last k taps can give. The
winner is read from the votes.
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
# Name of the rule, title of the chart, and how to read it.
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
    """How votes were counted.

    Attributes:
        name: the rule.
        weights: of the taps, (T,); None: the rule has no weights.
        tie_break: how equal classes are ordered.
    """

    name: str = BORDA
    weights: tuple[int, ...] | None = None
    tie_break: str = "class"

    def describe(self) -> dict[str, str]:
        """Return the rule in words for the page."""
        name, chart, note = WORDS[self.name]
        ties = "smaller class index" if self.tie_break == "class" else "smaller summed divergence"
        return {"name": name, "chart": chart, "note": note, "ties": ties}


def rule_of(votes: BlockElement) -> VotingRule:
    """Return the rule by which votes were scored."""
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
    """Return the points of the `chosen` classes in per cent of the maximum, (N, T).

    Index k - 1 of the second axis is for the last k taps.

    Args:
        rule: the rule.
        before: for every tap, which classes each voter ranks before the chosen one, (N, 2, M).
        chosen: one class per sample, (N,).
        signs: which voters of a tap count.
    """
    voters, taps = list(VOTING_SIGNS[signs]), len(before)
    shares = np.zeros((len(chosen), taps))
    count = _COUNTS[rule.name](before[0].shape[2], chosen)
    for column, tap in enumerate(reversed(range(taps))):
        weight = 1 if rule.weights is None else rule.weights[tap]
        count.add(before[tap][:, voters], weight)
        shares[:, column] = 100 * count.share()
    return shares


class _Sum:
    """Points summed over voters, relative to the sum of a class that all voters rank first."""

    def __init__(self, classes: int, chosen: NDArray[np.int64]) -> None:
        self._classes = classes
        self._sum, self._most = np.zeros(len(chosen)), 0

    def add(self, before: NDArray[np.bool_], weight: int) -> None:
        """Add the voters of a tap, (N, V, M)."""
        self._sum += weight * self._points(1 + before.sum(axis=2)).sum(axis=1)
        self._most += weight * before.shape[1] * int(self._points(np.ones(1, np.int64))[0])

    def share(self) -> NDArray[np.float64]:
        """Return the share of the maximum, (N,) in [0, 1]."""
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
        """Add to each margin the voters for the chosen class, minus those for the other class."""
        del weight
        self._margins += (1 - 2 * before.astype(np.int64)).sum(axis=1)

    def share(self) -> NDArray[np.float64]:
        """Return the share of the other classes that are beaten, ties counting half."""
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
        """Add the ranks that the voters of a tap give."""
        del weight
        self._ranks.append(1 + before.sum(axis=2))

    def share(self) -> NDArray[np.float64]:
        """Return the distance of the median rank from the last rank, (N,) in [0, 1]."""
        middle = np.median(np.concatenate(self._ranks, axis=1), axis=1)
        return np.asarray((self._classes - middle) / max(self._classes - 1, 1), np.float64)


_COUNTS: dict[str, type[_Sum | _Majorities | _Median]] = {
    BORDA: _Sum,
    "weighted-borda": _Sum,
    "plurality": _First,
    "copeland": _Majorities,
    "median-rank": _Median,
}
