"""Which of two classes more voters rank first, for all pairs: the counts of Copeland's rule.

Every tap changes all M x M pairs of a sample, and every k needs them. Compiled by Numba, if
installed, on the CPU: one pass per tap over pairs of one or two bytes that also counts the points.
Otherwise by torch, which makes several passes. Both give the same whole numbers.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from regroup.kernels.compilation import compile_with_numba
from regroup.kernels.threads import run_in_parallel

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

# Taps whose margins of a sign fit one byte.
_BYTE = 127


def rank_dtype(classes: int) -> torch.dtype:
    """Return the smallest type that holds ranks from 1 to `classes`, and their negatives."""
    return torch.int16 if classes < 2**15 else torch.int32


class Majorities:
    """For every pair of classes and each sign: the voters for one minus the voters for the other.

    Args:
        first: ranks (2, N, M) int64 from 1 of the first tap, sign 0 positive; `add` takes more.
    """

    def __init__(self, first: Tensor) -> None:
        signs, samples, classes = first.shape
        self._taps, self._points = 0, torch.empty(0)
        self._margins = first.new_zeros((signs, samples, classes, classes), dtype=torch.int8)
        self._compiled = first.device.type == "cpu" and copeland_kernel() is not None
        self.add(first)

    def add(self, ranks: Tensor) -> None:
        """Add the voters of a tap, `ranks` (2, N, M) int64."""
        self._taps += 1
        if self._taps == _BYTE + 1:
            self._margins = self._margins.to(torch.int16)
        small = ranks.to(rank_dtype(ranks.shape[-1]))
        self._points = self._add_compiled(small) if self._compiled else self._add_by_torch(small)

    def points(self) -> Tensor:
        """Return 2 per majority and 1 per tie of every class, (3, N, M) int64: both signs, each."""
        return self._points

    def _add_by_torch(self, ranks: Tensor) -> Tensor:
        self._margins += (ranks[..., None, :] - ranks[..., :, None]).sign()
        positive, negative = self._margins
        groups = (positive.to(torch.int16) + negative, positive, negative)
        return torch.stack([(1 + margins.sign()).sum(-1, dtype=torch.int64) for margins in groups])

    def _add_compiled(self, ranks: Tensor) -> Tensor:
        add = copeland_kernel()
        assert add is not None
        _, samples, classes = ranks.shape
        points = np.zeros((3, samples, classes), ranks.numpy().dtype)
        margins, given = self._margins.numpy(), ranks.numpy()
        run_in_parallel(
            lambda first, end: add(given, margins, points, first, end), samples, samples
        )
        return classes + torch.from_numpy(points).to(torch.int64)


@cache
def copeland_kernel() -> Callable[..., None] | None:
    """Return the compiled `_add`; None if Numba is not installed."""
    found = compile_with_numba(_add)
    return None if found is None else found[0]


def _add(
    ranks: NDArray[np.signedinteger],
    margins: NDArray[np.signedinteger],
    points: NDArray[np.signedinteger],
    first: int,
    end: int,
) -> None:
    """Add `ranks` to `margins`, and each class's wins minus losses to `points`.

    A margin is the negative of the one across the diagonal: so the points of all classes are
    counted side by side, from the losses of one class after the other. Everything is typed as 16
    bits, since Numba would count in 64 otherwise, a quarter as fast.

    Args:
        ranks: (2, N, M).
        margins: (2, N, M, M).
        points: (3, N, M), zeros on entry.
        first: first sample to process.
        end: end of the samples to process.
    """
    classes, up, down, none = ranks.shape[2], np.int16(1), np.int16(-1), np.int16(0)
    for sample in range(first, end):
        positive, negative = ranks[0, sample], ranks[1, sample]
        both, one, other = points[0, sample], points[1, sample], points[2, sample]
        for y in range(classes):
            of_one, of_other = margins[0, sample, y], margins[1, sample, y]
            rank_one, rank_other = positive[y], negative[y]
            for z in range(classes):
                # Voters that rank y before z, minus those that do not.
                p = np.int16(of_one[z] + (up if positive[z] > rank_one else down))
                n = np.int16(of_other[z] + (up if negative[z] > rank_other else down))
                of_one[z] = p
                of_other[z] = n
                sum_of_both = np.int16(p + n)
                one[z] += (up if p < 0 else none) - (up if p > 0 else none)
                other[z] += (up if n < 0 else none) - (up if n > 0 else none)
                both[z] += (up if sum_of_both < 0 else none) - (up if sum_of_both > 0 else none)
            # No voter ranks y before or after itself: undo the loss counted for each.
            of_one[y] = 0
            of_other[y] = 0
            one[y] -= up
            other[y] -= up
            both[y] -= up
