"""scikit-learn's 1797 scans of handwritten digits: the dataset that needs no download."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from regroup_store.errors import StoreUsageError
from regroup_store.sources.left_out import LeftOut
from regroup_store.sources.source import SourceRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SPLITS = ("", "train", "val")


class DigitsSource:
    """The scans (8 x 8 px, 16 grey levels above black) as binary PGM files of 75 bytes.

    Every third scan is validation. Sample ids and locators are ``digits-0000`` to
    ``digits-1796`` in scikit-learn's order, whichever the split.
    """

    def __init__(self, split: str = "") -> None:
        """Open a split.

        Args:
            split: ``train``, ``val``, or the empty string for both.

        Raises:
            StoreUsageError: there is no such split.
        """
        if split not in _SPLITS:
            raise StoreUsageError(f"digits has no split {split!r}: use digits:train or digits:val")
        self.spec = f"digits:{split}" if split else "digits"
        self.class_names = tuple(str(digit) for digit in range(10))
        self.left_out = LeftOut()
        self._split = split

    def rows(self) -> Iterator[SourceRow]:
        """All scans of the split, in scikit-learn's order."""
        from sklearn import __version__

        stamp = f"scikit-learn {__version__}"
        for name, (label, _) in _scans().items():
            if self._holds(name):
                yield SourceRow(name, label, name, stamp)

    def read(self, locators: Sequence[str]) -> list[bytes | OSError]:
        """PGM bytes of the scans.

        Raises:
            StoreUsageError: a locator is not of this split.
        """
        scans = _scans()
        for locator in locators:
            if locator not in scans or not self._holds(locator):
                raise StoreUsageError(f"{self.spec} has no image {locator!r}")
        return [scans[locator][1] for locator in locators]

    def _holds(self, name: str) -> bool:
        validation = int(name.removeprefix("digits-")) % 3 == 2
        return not self._split or validation == (self._split == "val")


@cache
def _scans() -> dict[str, tuple[int, bytes]]:
    """Label and PGM bytes of every scan, by its name.

    Grey values 0..16 become 0..255, rounded half up. PGM, because the bytes (and so the digest)
    of any compressed format would depend on the version of a library.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images.astype("int64") * 255 + 8) // 16
    return {
        f"digits-{row:04d}": (int(label), b"P5\n8 8\n255\n" + scan.astype("uint8").tobytes())
        for row, (label, scan) in enumerate(zip(digits.target, pixels, strict=True))
    }
