"""The method, literally: slow float64 loops, the oracle of every fast path.

Paper: arXiv 2006.10679, Algorithm 1 and equations 1 to 3, 6 and 7. Nothing here is meant to be
fast, and no fast path may call it. Sign 0 is positive, sign 1 negative; ranks start at 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.floating]

DELTA = 1e-20
VOTERS = {"both": (0, 1), "positive": (0,), "negative": (1,)}


def accumulator(phi: Floats, channel_axis: int) -> NDArray[np.float64]:
    """Return accumulators (N, 2, C) of responses `phi`: axis 0 samples, `channel_axis` channels."""
    sums = np.zeros((phi.shape[0], 2, phi.shape[channel_axis]))
    for position in np.ndindex(phi.shape):
        value = float(phi[position])
        sums[position[0], 0, position[channel_axis]] += max(0.0, value)
        sums[position[0], 1, position[channel_axis]] += max(0.0, -value)
    return sums


def pmf(accumulated: Floats, delta: float = DELTA) -> list[float]:
    """Return the PMF (C,) of one voter's accumulator (C,)."""
    total = math.fsum(float(value) + delta for value in accumulated)
    return [(float(value) + delta) / total for value in accumulated]


def class_weights(
    labels: Sequence[int], confidences: Sequence[float], weighting: str
) -> list[float]:
    """Return weights lambda_j (eq. 1), each class's summing to 1: by confidence, or equal."""
    raw = [float(c) if weighting == "softmax" else 1.0 for c in confidences]
    return [
        weight / math.fsum(w for w, other in zip(raw, labels, strict=True) if other == label)
        for weight, label in zip(raw, labels, strict=True)
    ]


def mixture(pmfs: Sequence[Sequence[float]], weights: Sequence[float]) -> list[float]:
    """Return the mixture C_y (C,) of one class and voter: its samples' weighted PMFs (eq. 1)."""
    channels = len(pmfs[0])
    return [
        math.fsum(w * p[i] for w, p in zip(weights, pmfs, strict=True)) for i in range(channels)
    ]


def kl(class_mixture: Floats | Sequence[float], sample_pmf: Sequence[float]) -> float:
    """Return KL(C_y || pmf(x)), the class on the left (eqs. 2, 3); zeros of C_y contribute 0."""
    terms = [
        float(c) * (math.log(c) - math.log(p))
        for c, p in zip(class_mixture, sample_pmf, strict=True)
        if c > 0
    ]
    return math.fsum(terms)


def divergences(accumulated: Floats, mixtures: Floats, delta: float = DELTA) -> list[float]:
    """Return the KL of one voter to every class, (M,): accumulator (C,), mixtures (M, C)."""
    return [kl(row, pmf(accumulated, delta)) for row in mixtures]


def ranks(voter_divergences: Sequence[float]) -> list[int]:
    """Return the rank of every class (M,) by ascending divergence, ties by class index."""
    order = sorted(range(len(voter_divergences)), key=lambda y: (voter_divergences[y], y))
    return [order.index(y) + 1 for y in range(len(order))]


def borda(voter_ranks: Sequence[int]) -> list[int]:
    """Return the Borda counts M - rank (M,) of one voter (eq. 6)."""
    return [len(voter_ranks) - rank for rank in voter_ranks]


def class_order(voters: Sequence[Sequence[float]], tie_break: str = "class") -> list[int]:
    """Return all classes, best first, by the voters' divergences (V, M) (eq. 7).

    The largest Borda sum comes first; ties go by class index, or with "divergence" first by the
    smaller sum of divergences.
    """
    counts = [borda(ranks(voter)) for voter in voters]
    classes = range(len(voters[0]))
    sums = [sum(count[y] for count in counts) for y in classes]
    summed = [math.fsum(voter[y] for voter in voters) for y in classes]
    if tie_break == "divergence":
        return sorted(classes, key=lambda y: (-sums[y], summed[y], y))
    return sorted(classes, key=lambda y: (-sums[y], y))


def voting(
    accumulators: Sequence[Floats],
    mixtures: Sequence[Floats],
    k: int,
    signs: str,
    delta: float = DELTA,
) -> list[list[float]]:
    """Return the divergences (V, M) of the voters: the chosen `signs` of the last `k` taps.

    Args:
        accumulators: one (2, C) per tap, of one sample.
        mixtures: one (2, M, C) per tap.
        k: how many of the last taps vote.
        signs: "both", "positive" or "negative".
        delta: added to every accumulator entry.
    """
    return [
        divergences(accumulators[tap][sign], mixtures[tap][sign], delta)
        for tap in range(len(mixtures) - k, len(mixtures))
        for sign in VOTERS[signs]
    ]


def borda_sums(
    accumulators: Sequence[Floats],
    mixtures: Sequence[Floats],
    k: int,
    signs: str,
    delta: float = DELTA,
) -> list[int]:
    """Return the Borda sums (M,) of one sample (eq. 7); arguments as `voting`."""
    counts = [borda(ranks(v)) for v in voting(accumulators, mixtures, k, signs, delta)]
    return [sum(count[y] for count in counts) for y in range(len(counts[0]))]


def predict(
    accumulators: Sequence[Floats],
    mixtures: Sequence[Floats],
    k: int,
    signs: str,
    tie_break: str = "class",
    delta: float = DELTA,
) -> int:
    """Return the predicted class of one sample; arguments as `voting` and `class_order`."""
    return class_order(voting(accumulators, mixtures, k, signs, delta), tie_break)[0]


def true_rank(
    accumulators: Sequence[Floats],
    mixtures: Sequence[Floats],
    label: int,
    k: int,
    signs: str,
    tie_break: str = "class",
    delta: float = DELTA,
) -> int:
    """Return the rank of `label`, from 1, in the order whose first class is the prediction."""
    voters = voting(accumulators, mixtures, k, signs, delta)
    return class_order(voters, tie_break).index(label) + 1


def choose_k(tap_accuracy: Sequence[float], threshold: float) -> tuple[int, int, bool]:
    """Return (k, count, reached) by the paper's rule (section 3.2); the last tap is the logits."""
    reaching = [accuracy >= threshold for accuracy in tap_accuracy]
    k, reached = 1, reaching[-1]
    for start in range(len(reaching) - 1):
        if all(reaching[start:-1]):
            k, reached = len(reaching) - start, True
            break
    return k, sum(reaching), reached
