"""How every voter ranks two classes of a sample: the true one and the one that the attack chose.

From stored accumulators and the bank (DESIGN §3): no network, no forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regroup.bank import Bank
from regroup.scoring import Scorer
from regroup_pipelines.report_pages.points import rule_of, running_points
from regroup_store.kinds.banks import read_bank
from regroup_store.kinds.features import accumulators_path
from regroup_store.kinds.votes import PREDICTION, SIGN_CHOICES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from regroup_pipelines.report_pages.evaluation import ReportedEvaluation
    from regroup_pipelines.report_pages.points import VotingRule
    from regroup_store.format.element import BlockElement


@dataclass(frozen=True)
class Ranks:
    """Of N images: true, other: (N, T, 2) int64, the rank that each tap and sign gives the true
    class and the other one (0: there is no other); winners: (N, T) int64, index k - 1 REGroup's
    prediction of the last k taps; true_points, other_points: (N, T) float64, what the two classes
    have there by the votes' rule, in per cent of the most.
    """

    true: NDArray[np.int64]
    other: NDArray[np.int64]
    winners: NDArray[np.int64]
    true_points: NDArray[np.float64]
    other_points: NDArray[np.float64]

    def describe(self) -> dict[str, list[Any]]:
        """Plain JSON."""
        points = {
            name: getattr(self, name).round(2).tolist() for name in ("true_points", "other_points")
        }
        ranks = {name: getattr(self, name).tolist() for name in ("true", "other", "winners")}
        return {**ranks, **points}


def open_scorer(evaluation: ReportedEvaluation, votes: BlockElement) -> Scorer:
    """Scores as the votes were scored: the same taps, the same delta."""
    stored = read_bank(evaluation.study.store, evaluation.results.bank_ref)
    mixtures = dict(zip(stored.taps, stored.mixtures, strict=True))
    taps = taps_of(votes)
    bank = Bank(taps, tuple(mixtures[tap] for tap in taps), stored.counts)
    scoring: Any = votes.inputs["scoring"]
    return Scorer(bank, delta=scoring["delta"])


def taps_of(votes: BlockElement) -> tuple[str, ...]:
    """The taps that may vote, first to last."""
    taps: Any = votes.inputs["taps"]
    return tuple(str(tap) for tap in taps)


def read_ranks(
    evaluation: ReportedEvaluation,
    images: str,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    others: NDArray[np.int64],
    scorer: Scorer | None = None,
) -> Ranks:
    """The ranks of some `rows` of clean or attacked `images`, in their order.

    labels, others: (N,), the two classes (-1: no other). Reads the blocks that hold a row, one
    tap of one block at a time.
    """
    votes, features = evaluation.votes(images), evaluation.features(images)
    scorer = scorer or open_scorer(evaluation, votes)
    accumulators = [
        _gather(features, accumulators_path(tap), rows).astype(np.float32) for tap in taps_of(votes)
    ]
    rule = rule_of(votes)
    divergences = [each.cpu().numpy() for each in scorer.divergences(accumulators)]
    found = [
        _class_ranks(divergences, chosen, rule, evaluation.signs) for chosen in (labels, others)
    ]
    winners = _gather(votes, PREDICTION, rows)[:, SIGN_CHOICES.index(evaluation.signs)]
    return Ranks(found[0][0], found[1][0], winners.astype(np.int64), found[0][1], found[1][1])


def _class_ranks(
    divergences: list[NDArray[np.floating]],
    chosen: NDArray[np.int64],
    rule: VotingRule,
    signs: str,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The rank that each voter gives class `chosen`, (N, T, 2), and its points (N, T).

    divergences: (N, 2, M) a tap. Ascending, ties by class index; rank 0 where the class is -1.
    """
    before = [_before(each, chosen) for each in divergences]
    ranks = 1 + np.stack([each.sum(axis=2) for each in before], axis=1)
    known = np.where((chosen >= 0)[:, None, None], ranks, 0).astype(np.int64)
    return known, running_points(rule, before, chosen, signs)


def _before(divergence: NDArray[np.floating], chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which classes come before each sample's chosen one, by divergences (N, 2, M): the same."""
    index = np.maximum(chosen, 0)
    own = np.take_along_axis(divergence, index[:, None, None], axis=2)
    smaller = np.arange(divergence.shape[2]) < index[:, None, None]
    return np.asarray((divergence < own) | ((divergence == own) & smaller))


def _gather(element: BlockElement, path: str, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Some rows of an array, in their order, reading each block that holds one once."""
    size = element.plan.block_rows
    found: NDArray[Any] | None = None
    for block in np.unique(rows // size):
        inside = np.flatnonzero(rows // size == block)
        values = element.read_array(path, int(block))
        if found is None:
            found = np.empty((len(rows), *values.shape[1:]), values.dtype)
        found[inside] = values[rows[inside] - block * size]
    if found is None:
        raise ValueError("no rows were asked for")
    return found
