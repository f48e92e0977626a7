"""Borda sums and decisions of a tap's two voters in a few reads, compiled by Numba.

For float32 on a CPU where ties go by class: what `regroup.scoring` does step by step with torch,
for every sample by itself and while its classes lie in a core's cache. The votes are the same.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from regroup.kernels.compilation import compile_with_numba
from regroup.kernels.threads import run_in_parallel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CLASS_BITS = 32
# Samples' integers that a core's cache holds while they are sorted: 0.5 MiB.
_PIECE = 2**16
# Values per thread from which a further thread pays off.
_WORTH_A_THREAD = 2**17


class BordaSums:
    """Borda sums (n, 3, M) int32 of n samples: both signs, positive, negative; starting at 0.

    Sums must fit: 2 * taps * M < 2**31.

    Args:
        labels: (n,) int64, the true classes.
        classes: M.
    """

    def __init__(self, labels: NDArray[np.int64], classes: int) -> None:
        self._labels = labels
        self._sums = np.zeros((len(labels), 3, classes), np.int32)

    def add(
        self,
        positive: NDArray[np.float32],
        negative: NDArray[np.float32],
        total: NDArray[np.int32],
        alone: NDArray[np.int32],
    ) -> None:
        """Add a tap's voters.

        Args:
            positive: divergences (n, M), none NaN.
            negative: divergences (n, M), none NaN.
            total: filled for the sums so far: (2, n, 3), predictions and true ranks, of any
                strides.
            alone: likewise, for this tap alone.
        """
        kernel: Any = borda_kernels()
        make_keys, decide = kernel
        classes = self._sums.shape[2]
        step = max(1, _PIECE // classes)

        def work(first: int, end: int) -> None:
            """Process the samples from `first` to `end`, a few at a time."""
            keys = np.empty((2, min(step, end - first), classes), np.int64)
            for start in range(first, end, step):
                piece = slice(start, min(start + step, end))
                few = keys[:, : piece.stop - start]
                make_keys(positive[piece], negative[piece], few)
                few.sort(axis=2)
                decide(
                    few, self._labels[piece], self._sums[piece], total[:, piece], alone[:, piece]
                )

        run_in_parallel(work, len(self._labels), 2 * positive.size / _WORTH_A_THREAD)


@cache
def borda_kernels() -> tuple[Any, ...] | None:
    """Return the compiled kernels; None if Numba is not installed."""
    return compile_with_numba(_keys, _decide)


def _keys(
    positive: NDArray[np.float32], negative: NDArray[np.float32], keys: NDArray[np.int64]
) -> None:
    """Fill integers (2, n, M) that order as (divergence, class) do; the class in the lower half.

    The bits of a float32 order as integers do once those of negative values are flipped; adding 0
    merges -0 and 0.
    """
    zero = np.float32(0)
    for row in range(positive.shape[0]):
        for sign in range(2):
            values = (positive if sign == 0 else negative)[row] + zero
            bits = values.view(np.int32)
            line = keys[sign, row]
            for y in range(len(bits)):
                value = bits[y]
                value ^= (value >> 31) & 0x7FFFFFFF
                line[y] = (np.int64(value) << _CLASS_BITS) | y


def _decide(
    keys: NDArray[np.int64],
    labels: NDArray[np.int64],
    sums: NDArray[np.int32],
    total: NDArray[np.int32],
    alone: NDArray[np.int32],
) -> None:
    """Add the points M - rank of sorted `keys` (2, n, M), and decide (eqs. 6, 7)."""
    classes = keys.shape[2]
    points = np.empty((3, classes), np.int32)
    for row in range(keys.shape[1]):
        label = labels[row]
        for sign in range(2):
            line = keys[sign, row]
            for rank in range(classes):
                points[1 + sign, line[rank] & 0xFFFFFFFF] = classes - 1 - rank
        for y in range(classes):
            points[0, y] = points[1, y] + points[2, y]
        for choice in range(3):
            own, mine = points[choice], sums[row, choice]
            for y in range(classes):
                mine[y] += own[y]
            for which in range(2):
                values = own if which == 0 else mine
                truth = values[label]
                largest, ahead = values[0], 0
                for y in range(classes):
                    largest = max(largest, values[y])
                    ahead += values[y] > truth
                for y in range(label):
                    ahead += values[y] == truth
                first = 0
                while values[first] != largest:
                    first += 1
                found = alone if which == 0 else total
                found[0, row, choice] = first
                found[1, row, choice] = ahead + 1
