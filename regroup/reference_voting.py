"""The rules of `regroup.voting`, written literally from their definitions: a slow oracle."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from regroup.reference import borda, ranks

if TYPE_CHECKING:
    from collections.abc import Sequence


def scores_by_rule(
    rule: str, voters: Sequence[Sequence[float]], weights: Sequence[int] | None = None
) -> list[float]:
    """Return the score of every class (M,) under `rule`; the largest is best.

    Args:
        rule: a name of `regroup.voting.RULES`.
        voters: divergences (V, M).
        weights: (V,), only for weighted-borda.
    """
    ballots = [ranks(voter) for voter in voters]
    classes = range(len(ballots[0]))
    if rule == "plurality":
        return [sum(ballot[y] == 1 for ballot in ballots) for y in classes]
    if rule == "median-rank":
        return [-median(ballot[y] for ballot in ballots) for y in classes]
    if rule == "copeland":
        return [sum(_duel(ballots, y, z) for z in classes if z != y) for y in classes]
    if rule == "weighted-borda":
        counts = [borda(ballot) for ballot in ballots]
        pairs = list(zip(weights or [], counts, strict=True))
        return [sum(weight * count[y] for weight, count in pairs) for y in classes]
    raise ValueError(rule)


def _duel(ballots: Sequence[Sequence[int]], y: int, z: int) -> float:
    """Return 1 if more voters rank y before z than after it, half for as many, else 0."""
    before = sum(ballot[y] < ballot[z] for ballot in ballots)
    after = len(ballots) - before
    return 1.0 if before > after else 0.5 if before == after else 0.0


def class_order_by_rule(
    rule: str,
    voters: Sequence[Sequence[float]],
    weights: Sequence[int] | None = None,
    tie_break: str = "class",
) -> list[int]:
    """Return all classes, best first; ties by class index, or first by the smaller divergence."""
    found = scores_by_rule(rule, voters, weights)
    summed = [sum(voter[y] for voter in voters) if tie_break != "class" else 0.0
              for y in range(len(found))]  # fmt: skip
    return sorted(range(len(found)), key=lambda y: (-found[y], summed[y], y))
