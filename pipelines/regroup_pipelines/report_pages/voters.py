"""The rank that every voter gives to two classes of a sample: the true and the adversarial one.

They are computed from stored accumulators and the bank, without a forward pass.
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
    """Ranks and points of two classes for N images, over T taps.

    Attributes:
        true: rank of the true class by tap and sign, (N, T, 2).
        other: rank of the other class, 0 where there is none, (N, T, 2).
        winners: REGroup's prediction by the last k taps at index k - 1, (N, T).
        true_points: points of the true class by the last k taps, in per cent of the maximum,
            (N, T).
        other_points: the same for the other class, (N, T).
    """

    true: NDArray[np.int64]
    other: NDArray[np.int64]
    winners: NDArray[np.int64]
    true_points: NDArray[np.float64]
    other_points: NDArray[np.float64]

    def describe(self) -> dict[str, list[Any]]:
        """Return the ranks as plain JSON."""
        points = {
            name: getattr(self, name).round(2).tolist() for name in ("true_points", "other_points")
        }
        ranks = {name: getattr(self, name).tolist() for name in ("true", "other", "winners")}
        return {**ranks, **points}


def open_scorer(evaluation: ReportedEvaluation, votes: BlockElement) -> Scorer:
    """Return a scorer with the taps and the delta of the votes."""
    stored = read_bank(evaluation.study.store, evaluation.results.bank_ref)
    mixtures = dict(zip(stored.taps, stored.mixtures, strict=True))
    taps = taps_of(votes)
    bank = Bank(taps, tuple(mixtures[tap] for tap in taps), stored.counts)
    scoring: Any = votes.inputs["scoring"]
    return Scorer(bank, delta=scoring["delta"])


def taps_of(votes: BlockElement) -> tuple[str, ...]:
    """Return the taps that may vote, first to last."""
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
    """Compute the ranks of some samples of a set of images.

    Only the blocks that hold one of them are read, one tap of one block at a time.

    Args:
        evaluation: tap policy and bank.
        images: the set of images.
        rows: rows of the samples in the votes, (N,).
        labels: true classes, (N,).
        others: the other classes, -1 where there is none, (N,).
        scorer: as from `open_scorer`; None: opened here.
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
    """Return the rank that each voter gives to the chosen classes, (N, T, 2), and their points.

    Ranks are by ascending divergence, ties by class index; 0 where the class is -1.

    Args:
        divergences: one array (N, 2, M) per tap.
        chosen: one class per sample, (N,).
        rule: of the points.
        signs: which voters of a tap count for the points.
    """
    before = [_before(each, chosen) for each in divergences]
    ranks = 1 + np.stack([each.sum(axis=2) for each in before], axis=1)
    known = np.where((chosen >= 0)[:, None, None], ranks, 0).astype(np.int64)
    return known, running_points(rule, before, chosen, signs)


def _before(divergence: NDArray[np.floating], chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which classes rank before each sample's chosen one, (N, 2, M), by divergence."""
    index = np.maximum(chosen, 0)
    own = np.take_along_axis(divergence, index[:, None, None], axis=2)
    smaller = np.arange(divergence.shape[2]) < index[:, None, None]
    return np.asarray((divergence < own) | ((divergence == own) & smaller))


def _gather(element: BlockElement, path: str, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Gather rows of an array in the given order, reading each block at most once."""
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
