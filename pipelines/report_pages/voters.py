"""How every voter ranks two classes of a sample: the true one and the one that the attack chose.

From stored accumulators and the bank (DESIGN §3): no network, no forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from store.features import accumulators_path
from store.votes import PREDICTION, SIGN_CHOICES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.report_pages.evaluation import Evaluation
    from regroup.scoring import Scorer
    from store.element import BlockElement


@dataclass(frozen=True)
class Ranks:
    """Of N images: true, other: (N, T, 2) int64, the rank that each tap and sign gives the true
    class and the other one (0: there is no other); winners: (N, T) int64, index k - 1 REGroup's
    prediction of the last k taps.
    """

    true: NDArray[np.int64]
    other: NDArray[np.int64]
    winners: NDArray[np.int64]


def open_scorer(evaluation: Evaluation, votes: BlockElement) -> Scorer:
    """Scores as the votes were scored: the same taps, the same delta."""
    from regroup.bank import Bank
    from regroup.scoring import Scorer
    from store.banks import read_bank

    stored = read_bank(evaluation.study.store, evaluation.row["bank_ref"])
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
    evaluation: Evaluation,
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
    true, other = class_ranks(scorer, accumulators, labels, others)
    winners = _gather(votes, PREDICTION, rows)[:, SIGN_CHOICES.index(evaluation.signs)]
    return Ranks(true, other, winners.astype(np.int64))


def class_ranks(
    scorer: Scorer,
    accumulators: list[NDArray[np.float32]],
    labels: NDArray[np.int64],
    others: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rank that each voter gives class `labels` and class `others`, each (N, T, 2).

    accumulators: (N, 2, C) a tap. Ascending divergence, ties by class index; 0 where the class
    is -1.
    """
    divergences = [each.cpu().numpy() for each in scorer.divergences(accumulators)]
    found = [
        np.stack([_rank(each, chosen) for each in divergences], axis=1)
        for chosen in (labels, others)
    ]
    return found[0], found[1]


def _rank(divergence: NDArray[np.floating], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each sample's class among the divergences (N, 2, M): (N, 2) int64."""
    index = np.maximum(chosen, 0)
    own = np.take_along_axis(divergence, index[:, None, None], axis=2)
    before = np.arange(divergence.shape[2]) < index[:, None, None]
    ahead = (divergence < own) | ((divergence == own) & before)
    return np.where(chosen[:, None] >= 0, 1 + ahead.sum(axis=2), 0).astype(np.int64)


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
