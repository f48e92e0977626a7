"""Which images to try for a bank: a seeded order for each class, a few of them at a time.

A bank needs some correctly classified samples of each class (paper arXiv 2006.10679, section 3.1),
and whether one is correct is known only after its forward pass. So the first images of each class,
in the order in which a bank takes them, are tried, and then more for classes that still lack
samples. The bank's samples are the same as if all images had been tried.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


def order_key(seed: int, sample_id: str) -> bytes:
    """Return the sort key of a sample within its class: the sha256 of (seed, sample_id)."""
    return hashlib.sha256(f"{seed}\0{sample_id}".encode()).digest()


@dataclass(frozen=True, eq=False)
class Candidates:
    """The first images of each class in seeded order, ascending by row.

    Attributes:
        sample_ids: n.
        rows: rows of the index, (n,) int64.
        labels: (n,) int64.
        images: how many images each class has in all, (M,) int64.
    """

    sample_ids: list[str]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    images: NDArray[np.int64]


class CandidateSampler:
    """Finds the candidates in one pass over an index.

    Memory: the candidates, and one block.

    Args:
        depths: how many candidates of each class, (M,) int.
        seed: of the order.
    """

    def __init__(self, depths: ArrayLike, seed: int) -> None:
        self._depths, self._seed = np.asarray(depths, np.int64), seed
        self._images = np.zeros(len(self._depths), np.int64)
        self._first: list[list[tuple[bytes, int, str]]] = [[] for _ in self._depths]

    def update(self, first_row: int, sample_ids: Sequence[str], labels: ArrayLike) -> None:
        """Consider the rows from `first_row` on; `labels`: (n,) int in 0 to M - 1."""
        label = np.asarray(labels, np.int64)
        self._images += np.bincount(label, minlength=len(self._images))
        for row, (y, sample_id) in enumerate(zip(label.tolist(), sample_ids, strict=True)):
            self._first[y].append((order_key(self._seed, sample_id), first_row + row, sample_id))
        for y in np.unique(label).tolist():
            self._first[y] = sorted(self._first[y])[: self._depths[y]]

    def finish(self) -> Candidates:
        """Return the candidates; a class with fewer images gives all it has."""
        found = sorted((row, y, name) for y, one in enumerate(self._first) for _, row, name in one)
        rows, labels, names = zip(*found, strict=True) if found else ((), (), ())
        return Candidates(
            list(names), np.array(rows, np.int64), np.array(labels, np.int64), self._images
        )


def first_depth(per_class: int, accuracy: float) -> int:
    """Return how many images of a class to try first, so that most classes need no others.

    Of n images, each correct with probability `accuracy`, n * accuracy are correct, give or take
    sqrt(n * accuracy * (1 - accuracy)): one such deviation is added, which suffices for about five
    classes in six.

    Raises:
        ConfigurationError: `per_class` is below 1, or `accuracy` is not in (0, 1].
    """
    if per_class < 1:
        raise ConfigurationError(f"{per_class} samples per class: a bank needs at least 1")
    if not 0 < accuracy <= 1:
        raise ConfigurationError(
            f"expected accuracy {accuracy:g}: give a share of the images, above 0 and at most 1"
        )
    return math.ceil((per_class + math.sqrt(per_class * (1 - accuracy))) / accuracy)


def next_depths(
    depths: NDArray[np.int64],
    images: NDArray[np.int64],
    correct: NDArray[np.int64],
    per_class: int,
) -> NDArray[np.int64]:
    """Return how many images of each class to try next, (M,); more only where samples are lacking.

    A class that has run out of images stays unchanged as well. The accuracy seen in a class sets
    the size of its next round, which is at least a quarter of what was tried, so that rounds are
    few.

    Args:
        depths: tried so far, (M,) int64.
        images: of each class in all, (M,) int64.
        correct: correctly classified among those tried, (M,) int64.
        per_class: how many a bank needs per class.
    """
    deeper = depths.copy()
    for y in np.flatnonzero((correct < per_class) & (deeper < images)).tolist():
        tried = int(deeper[y])
        seen = (int(correct[y]) + 1) / (tried + 2)
        more = max(first_depth(per_class - int(correct[y]), seen), math.ceil(tried / 4))
        deeper[y] = min(tried + more, int(images[y]))
    return deeper
