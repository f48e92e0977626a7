"""Which samples make a bank (paper arXiv 2006.10679, eq. 1), chosen in one pass over the features.

Memory: at most twice the bank's samples and one block, however many samples pass.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from regroup.bank import Weighting, check_label_range, class_weights, refuse_empty
from regroup.candidates import order_key
from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

# Of one candidate: its place in the seeded order, its row, its confidence.
_Candidate = tuple[bytes, int, float]


@dataclass(frozen=True, eq=False)
class BankSamples:
    """The samples of a bank, ascending by row.

    Attributes:
        rows: their rows in the features, (n,) int64.
        labels: (n,) int64.
        confidences: the softmax probability of their prediction, (n,) float64.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    confidences: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WeightedSamples:
    """Those samples of a bank that one features element holds, with their weights.

    Attributes:
        rows: their rows in that element, (n,) int64 ascending.
        labels: (n,) int64.
        weights: (n,) float64; over all elements, each class's weights sum to 1 (paper, eq. 1).
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]


def weigh_samples(
    samples: BankSamples,
    starts: NDArray[np.int64],
    num_classes: int,
    weighting: Weighting,
) -> tuple[WeightedSamples, ...]:
    """Weigh the samples of a bank and split them by the features element that holds them.

    Args:
        samples: rows numbered over all elements.
        starts: (elements,) int64 ascending; row r of element i is row starts[i] + r of `samples`.
        num_classes: M.
        weighting: see `regroup.bank.class_weights`.

    Returns:
        One entry per element, in the order of `starts`; empty where an element has no sample.
    """
    weights = class_weights(samples.labels, samples.confidences, num_classes, weighting)
    part = np.searchsorted(starts, samples.rows, side="right") - 1
    return tuple(
        WeightedSamples(samples.rows[mine] - start, samples.labels[mine], weights[mine])
        for start, mine in zip(starts, (part == i for i in range(len(starts))), strict=True)
    )


class BankSampler:
    """Draws a bank's samples from blocks of rows.

    Of the correctly classified samples of each class it takes the first `per_class`, in an order
    keyed by sha256 of (seed, sample_id): independent of the order of rows and of blocks, provided
    that ids are unique. A class with fewer gives all it has.

    Raises:
        ConfigurationError: `per_class` is below 1.
    """

    def __init__(self, num_classes: int, per_class: int, seed: int) -> None:
        if per_class < 1:
            raise ConfigurationError(f"{per_class} samples per class: a bank needs at least 1")
        self._per_class, self._seed = per_class, seed
        self._best: list[list[_Candidate]] = [[] for _ in range(num_classes)]

    def update(
        self,
        rows: ArrayLike,
        sample_ids: Sequence[str],
        labels: ArrayLike,
        predictions: ArrayLike,
        confidences: ArrayLike,
    ) -> None:
        """Consider some rows.

        Args:
            rows: (n,) int.
            sample_ids: n.
            labels: (n,) int.
            predictions: (n,) int, -1 for rows that failed.
            confidences: (n,).

        Raises:
            ConfigurationError: the lengths differ, or a label is out of range.
        """
        label, prediction = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
        confidence = np.asarray(confidences, np.float64)
        if not len(sample_ids) == len(label) == len(prediction) == len(confidence):
            raise ConfigurationError(
                f"{len(sample_ids)} sample ids, {len(label)} labels, {len(prediction)} predictions "
                f"and {len(confidence)} confidences: give one of each per sample"
            )
        numbers = np.asarray(rows, np.int64)
        usable = np.flatnonzero((label == prediction) & (prediction >= 0))
        check_label_range(label[usable], len(self._best))
        for row in usable.tolist():
            at = order_key(self._seed, sample_ids[row])
            candidate = (at, int(numbers[row]), float(confidence[row]))
            self._best[label[row]].append(candidate)
        for y in np.unique(label[usable]).tolist():
            self._best[y] = sorted(self._best[y])[: self._per_class]

    def finish(
        self, class_names: Sequence[str] | None = None, replicate: int | None = None
    ) -> BankSamples:
        """Return the samples.

        Args:
            class_names: names for the error message.
            replicate: the number of a bootstrap replicate: equally many samples per class, drawn
                from these with replacement, so that rows repeat (Efron 1979).

        Raises:
            ConfigurationError: a class has no samples.
        """
        counts = np.array([len(best) for best in self._best])
        refuse_empty(counts, "no correctly classified sample", class_names)
        drawn = self._best if replicate is None else self._resampled(replicate)
        rows = np.array([row for best in drawn for _, row, _ in best], np.int64)
        confidences = np.array([c for best in drawn for _, _, c in best], np.float64)
        labels = np.repeat(np.arange(len(counts)), counts)
        order = np.argsort(rows, kind="stable")
        return BankSamples(rows[order], labels[order], confidences[order])

    def _resampled(self, replicate: int) -> list[list[_Candidate]]:
        """Draw each class's samples anew, by hash, so that the draw depends on nothing else."""
        return [
            [
                best[_draw(self._seed, replicate, y, number) % len(best)]
                for number in range(len(best))
            ]
            for y, best in enumerate(self._best)
        ]


def _draw(seed: int, replicate: int, label: int, number: int) -> int:
    """Return a number of 256 random bits: so many that a remainder favours no sample noticeably."""
    key = f"{seed}\0{replicate}\0{label}\0{number}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest(), "big")
