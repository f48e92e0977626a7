"""Banks: the class-conditional mixtures of all voters (paper arXiv 2006.10679, eq. 1).

A bank is a weighted mean of PMFs, so it is built from sums that merge: of blocks, in any order. All
sums are float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from regroup.errors import ConfigurationError, RegroupError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from numpy.typing import NDArray

SIGNS = ("positive", "negative")
SIGN_CHOICES = ("both", "positive", "negative")
DELTA = 1e-20
Weighting = Literal["softmax", "uniform"]
_NAMED_AT_MOST = 5
# Channels times rows that are weighted at a time: 1 MiB with both signs.
_PIECE = 2**16


def pmf(accumulators: NDArray[np.floating], delta: float = DELTA) -> NDArray[np.float64]:
    """Return PMFs (..., C) float64 of accumulators (..., C): (a + delta) / sum(a + delta)."""
    shifted = np.asarray(accumulators, np.float64) + delta
    normalised: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return normalised


def class_weights(
    labels: NDArray[np.integer],
    confidences: NDArray[np.floating],
    num_classes: int,
    weighting: Weighting,
) -> NDArray[np.float64]:
    """Return weights lambda_j (n,) float64, each class's summing to 1 (eq. 1).

    Args:
        labels: (n,) in 0 to M - 1.
        confidences: (n,), the softmax probability of the prediction.
        num_classes: M.
        weighting: "softmax" weighs by confidence, "uniform" equally.

    Raises:
        ConfigurationError: a class whose weight is all zero.
    """
    raw = _raw_weights(labels, confidences, num_classes, weighting)
    totals = np.bincount(labels, raw, num_classes)
    present = np.bincount(labels, minlength=num_classes) > 0
    refuse_empty(np.where(present, totals, 1.0), "no confidence at all", None)
    weights: NDArray[np.float64] = raw / totals[labels]
    return weights


def partial_mixture(
    accumulators: NDArray[np.floating],
    labels: NDArray[np.integer],
    weights: NDArray[np.floating],
    num_classes: int,
    delta: float = DELTA,
) -> NDArray[np.float64]:
    """Return the sum of w_j pmf_j per class, (2, M, C) float64; sums of disjoint samples add up.

    Args:
        accumulators: (n, 2, C).
        labels: (n,) in 0 to M - 1.
        weights: (n,).
        num_classes: M.
        delta: added to every accumulator entry.

    Raises:
        RegroupError: accumulators that are negative or not finite.
        ConfigurationError: labels out of range.
    """
    sums = np.zeros((2, num_classes, accumulators.shape[2]))
    add_mixture(sums, accumulators, labels, weights, delta)
    return sums


def add_mixture(
    sums: NDArray[np.float64],
    accumulators: NDArray[np.floating],
    labels: NDArray[np.integer],
    weights: NDArray[np.floating],
    delta: float = DELTA,
) -> None:
    """Add what `partial_mixture` returns to `sums`, (2, M, C) float64; raises as it does.

    Works in pieces that a CPU's cache holds. What was added before a piece that raises stays added.
    """
    signs, num_classes, channels = sums.shape
    check_label_range(labels, num_classes)
    voters = torch.from_numpy(sums).view(signs * num_classes, channels)
    target = np.asarray(labels, np.int64)[:, None] + num_classes * np.arange(signs)
    lambdas = np.repeat(np.asarray(weights, np.float64), signs).reshape(target.shape)
    step = max(1, _PIECE // max(1, channels))
    for start in range(0, len(labels), step):
        piece = slice(start, start + step)
        rows = _weighted(accumulators[piece], torch.from_numpy(lambdas[piece].ravel()), delta)
        # Several times faster than np.add.at and np.add.reduceat.
        voters.index_add_(0, torch.from_numpy(target[piece].ravel()), rows)


def _weighted(accumulators: NDArray[np.floating], lambdas: Tensor, delta: float) -> Tensor:
    """Return rows (2 n, C) float64: lambda_j pmf_j of accumulators (n, 2, C), signs adjacent.

    In place and by torch: its sums and products by row are several times as fast as NumPy's.
    """
    values = np.array(accumulators, np.float64, order="C")
    rows = torch.from_numpy(values.reshape(len(lambdas), -1))
    lowest = rows.min()  # NaN if there is one
    rows += delta
    totals = rows.sum(1)
    if not (lowest >= 0 and torch.isfinite(totals).all()):
        raise RegroupError(
            "accumulators of the bank's samples hold NaN, infinite or negative values: the network "
            "overflowed on them or the features are damaged; extract them again"
        )
    rows *= (lambdas / totals)[:, None]
    return rows


@dataclass(frozen=True, eq=False)
class Bank:
    """The class-conditional mixtures of all voters.

    Attributes:
        taps: names in execution order.
        mixtures: one per tap, (2, M, C) float64, sign 0 positive, each row a distribution over
            channels.
        counts: samples per class, (M,) int64.

    Raises:
        ConfigurationError: these do not fit together, or a row is not a distribution.
    """

    taps: tuple[str, ...]
    mixtures: tuple[NDArray[np.float64], ...]
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not self.taps or len(self.taps) != len(self.mixtures):
            raise ConfigurationError(
                f"a bank of {len(self.taps)} taps with the mixtures of {len(self.mixtures)}: "
                "it needs at least one tap, and mixtures for each"
            )
        for tap, mixtures in zip(self.taps, self.mixtures, strict=True):
            if mixtures.ndim != 3 or mixtures.shape[:2] != (2, self.num_classes):
                raise ConfigurationError(
                    f"the bank's mixtures of tap {tap} have shape {mixtures.shape}: they must be "
                    f"(2, {self.num_classes}, channels)"
                )
            if not ((mixtures >= 0).all() and (abs(mixtures.sum(-1) - 1) < 1e-6).all()):
                raise ConfigurationError(
                    f"the bank's mixtures of tap {tap} are not distributions (not negative, "
                    "summing to 1): build the bank again"
                )

    @property
    def num_classes(self) -> int:
        """M."""
        return len(self.counts)

    def last(self, k: int) -> Bank:
        """Return the bank of the last `k` taps.

        Raises:
            ConfigurationError: k out of range.
        """
        check_k_range(k, len(self.taps))
        return Bank(self.taps[-k:], self.mixtures[-k:], self.counts)


@dataclass(eq=False)
class BankStatistics:
    """Sums from which a bank is made; sums of disjoint samples merge in any order.

    Attributes:
        taps: names in execution order.
        sums: one per tap, (2, M, C) float64, sums of weighted PMFs.
        weight: (M,) float64, over the samples seen.
        count: (M,) int64, the samples seen.
    """

    taps: tuple[str, ...]
    sums: tuple[NDArray[np.float64], ...]
    weight: NDArray[np.float64]
    count: NDArray[np.int64]

    @classmethod
    def zeros(cls, taps: Sequence[tuple[str, int]], num_classes: int) -> Self:
        """Return sums over no samples.

        Args:
            taps: (name, channels) in execution order.
            num_classes: M.
        """
        return cls(
            tuple(name for name, _ in taps),
            tuple(np.zeros((2, num_classes, channels)) for _, channels in taps),
            np.zeros(num_classes),
            np.zeros(num_classes, np.int64),
        )

    def update(
        self,
        accumulators: Sequence[NDArray[np.floating]],
        labels: NDArray[np.integer],
        confidences: NDArray[np.floating],
        weighting: Weighting = "softmax",
        delta: float = DELTA,
    ) -> None:
        """Add samples, all correctly classified (see `regroup.bank_samples`).

        Args:
            accumulators: one per tap, (n, 2, C).
            labels: (n,).
            confidences: (n,).
            weighting: see `class_weights`.
            delta: added to every accumulator entry.

        Raises:
            ConfigurationError: accumulators of other taps, or as `class_weights`; nothing is added.
            RegroupError: as `partial_mixture`; nothing is added.
        """
        self._check(accumulators, len(labels))
        classes = len(self.count)
        weights = _raw_weights(labels, confidences, classes, weighting)
        parts = [partial_mixture(a, labels, weights, classes, delta) for a in accumulators]
        for sums, part in zip(self.sums, parts, strict=True):
            sums += part
        self.weight += np.bincount(labels, weights, classes)
        self.count += np.bincount(labels, minlength=classes)

    def merge(self, other: BankStatistics) -> None:
        """Add the sums of other samples.

        Raises:
            ConfigurationError: they are of other taps.
        """
        shapes = [[part.shape for part in statistics.sums] for statistics in (self, other)]
        if self.taps != other.taps or shapes[0] != shapes[1]:
            raise ConfigurationError(
                "these bank statistics are of another model: do not merge them"
            )
        for sums, part in zip(self.sums, other.sums, strict=True):
            sums += part
        self.weight += other.weight
        self.count += other.count

    def finalise(self, class_names: Sequence[str] | None = None) -> Bank:
        """Return the bank.

        Raises:
            ConfigurationError: a class without samples or weight, which is named.
        """
        refuse_empty(self.count, "no correctly classified sample", class_names)
        refuse_empty(self.weight, "no confidence at all", class_names)
        mixtures = tuple(sums / self.weight[:, None] for sums in self.sums)
        return Bank(self.taps, mixtures, self.count.copy())

    def _check(self, accumulators: Sequence[NDArray[np.floating]], samples: int) -> None:
        found = [a.shape for a in accumulators]
        expected = [(samples, 2, sums.shape[2]) for sums in self.sums]
        if found != expected:
            raise ConfigurationError(
                f"accumulators of shapes {found} where {samples} samples and the taps need "
                f"{expected}: they are of another model"
            )


def check_k_range(k: int, taps: int) -> None:
    """Raise ConfigurationError unless the last `k` of `taps` taps can vote."""
    if not 1 <= k <= taps:
        raise ConfigurationError(f"k = {k}: the bank has {taps} taps, so k is from 1 to {taps}")


def _raw_weights(
    labels: NDArray[np.integer],
    confidences: NDArray[np.floating],
    num_classes: int,
    weighting: Weighting,
) -> NDArray[np.float64]:
    check_label_range(labels, num_classes)
    if weighting not in ("softmax", "uniform"):
        raise ConfigurationError(f"unknown weighting {weighting!r}: choose softmax or uniform")
    weights = np.asarray(confidences, np.float64)
    if weighting == "uniform":
        return np.ones(len(labels))
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise RegroupError(
            "confidences of the bank's samples are NaN, infinite or negative: extract the features "
            "again, or weigh samples uniformly"
        )
    return weights


def check_label_range(labels: NDArray[np.integer], num_classes: int) -> None:
    """Raise ConfigurationError unless every label is in 0 to `num_classes` - 1."""
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise ConfigurationError(
            f"label {wrong[0]}: the bank has classes 0 to {num_classes - 1}; leave failed rows out"
        )


def refuse_empty(
    amounts: NDArray[np.generic], what: str, class_names: Sequence[str] | None
) -> None:
    """Raise ConfigurationError if a class has an amount (M,) of zero.

    Args:
        amounts: (M,), per class.
        what: what the class lacks, for the message.
        class_names: names for the message; None: class indices.
    """
    empty = [
        str(class_names[y]) if class_names else str(y)
        for y in map(int, np.flatnonzero(amounts == 0))
    ]
    if empty:
        more = len(empty) - _NAMED_AT_MOST
        named = ", ".join(empty[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
        raise ConfigurationError(
            f"the bank has {what} of class {named}: give the dataset samples that the model "
            "classifies correctly, or use a model that knows the class"
        )
