"""Parquet files in the Hugging Face layout: an image column of bytes and an integer label."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from regroup_store.errors import StoreUsageError
from regroup_store.sources.left_out import LeftOut
from regroup_store.sources.limits import DEFAULT_LARGEST, TooLargeError
from regroup_store.sources.parquet_files import DatasetFile, GroupImages, open_file
from regroup_store.sources.places import find_by_name
from regroup_store.sources.source import (
    SourceRow,
    absolute,
    file_system,
    spec_of,
    stamp,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_EXAMPLE = "parquet:data/test-*.parquet"


class ParquetSource:
    """The files that a glob matches, sorted by name.

    Columns: `image` (or `img`, or the only one of its kind), a struct with the field `bytes`, or
    binary itself; `label` (or `labels`, or the only ClassLabel, or the one that was named), an
    integer. Sample ids and locators are ``<file name>#<row in the file>``. A row group is read
    from its beginning, and kept as far as it fits, since blocks run along the files.
    """

    def __init__(
        self, location: str, label_column: str | None = None, largest: int = DEFAULT_LARGEST
    ) -> None:
        """Find the files and check the first; `rows` checks the others.

        Args:
            location: of the files.
            label_column: name of the column of labels, if it is not a usual one.
            largest: bytes that one sample, page or part of a row group may cost.

        Raises:
            StoreUsageError: nothing matches, two files share their name, or columns are missing.
        """
        self._label_column, self._largest = label_column, largest
        self.left_out = LeftOut()
        self._fs, pattern = file_system(location, f"parquet:{location}")
        self.spec = spec_of("parquet", label_column, absolute(self._fs, pattern))
        self._paths = find_by_name(self._fs, [pattern], self.spec, _EXAMPLE)
        self._opened: dict[str, DatasetFile] = {}
        self._kept: tuple[tuple[str, int], GroupImages] | None = None
        self._file(next(iter(self._paths)))

    def __getstate__(self) -> dict[str, object]:
        """The source without what it has in memory of a file."""
        return {**self.__dict__, "_kept": None}

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The ClassLabel names of the files, else ``"0"`` to the largest label of all files.

        Raises:
            StoreUsageError: the files disagree about the names, or a label is not usable.
        """
        first, *others = self._files()
        for other in others:
            if other.class_names != first.class_names:
                raise StoreUsageError(
                    f"{self.spec}: {first.name} and {other.name} name their classes differently; "
                    "index them as two datasets"
                )
        if first.class_names:
            return first.class_names
        largest = max(max(file.labels(self._fs), default=-1) for file in self._files())
        return tuple(str(label) for label in range(largest + 1))

    def rows(self) -> Iterator[SourceRow]:
        """All rows, by file and then in the order of the file.

        Raises:
            StoreUsageError: no row at all, or a label that is null or not the index of a class.
        """
        self.left_out.clear()
        if not any(file.starts[-1] for file in self._files()):
            raise StoreUsageError(f"{self.spec}: the files have no rows")
        for file in self._files():
            version = stamp(self._fs, self._fs.info(file.path))
            if not file.starts[-1]:
                self.left_out.add("files without a row", file.name)
            for row, label in enumerate(file.labels(self._fs)):
                place = f"{file.name}#{row}"
                self._check_label(place, label)
                yield SourceRow(place, label, place, version)

    def read(self, locators: Sequence[str]) -> list[bytes | OSError]:
        """Image bytes of the rows.

        Raises:
            StoreUsageError: a locator is not a row of these files.
        """
        places = [self._place(locator) for locator in locators]
        read: dict[int, bytes | OSError] = {}
        # Grouped, so that a shuffled request still reads each row group once.
        for index in sorted(range(len(places)), key=places.__getitem__):
            read[index] = self._read(locators[index], *places[index])
        return [read[index] for index in range(len(places))]

    def _files(self) -> Iterator[DatasetFile]:
        return (self._file(name) for name in self._paths)

    def _check_label(self, place: str, label: int) -> None:
        classes = len(self.class_names)
        if label >= classes:
            raise StoreUsageError(
                f"{place}: label {label} is not an index of the {classes} classes that the file "
                "names"
            )

    def _file(self, name: str) -> DatasetFile:
        if name not in self._opened:
            path = self._paths[name]
            self._opened[name] = open_file(self._fs, name, path, self._label_column, self._largest)
        return self._opened[name]

    def _place(self, locator: str) -> tuple[str, int, int]:
        """File name, row group, and row within that group."""
        name, _, text = locator.rpartition("#")
        if name in self._paths and text.isascii() and text.isdigit():
            starts, row = self._file(name).starts, int(text)
            if row < starts[-1]:
                group = bisect_right(starts, row) - 1
                return name, group, row - starts[group]
        raise StoreUsageError(f"{self.spec} has no row {locator!r}")

    def _read(self, locator: str, name: str, group: int, row: int) -> bytes | OSError:
        try:
            data = self._row_group(name, group).row(row)
        except TooLargeError as error:
            return OSError(f"{locator} {error}")
        except (OSError, pa.ArrowException) as error:
            return unreadable(locator, error)
        return OSError(f"{locator} has no image bytes") if data is None else data

    def _row_group(self, name: str, group: int) -> GroupImages:
        kept = self._kept  # read once: a thread that prefetches may replace it
        if kept is not None and kept[0] == (name, group):
            return kept[1]
        images = self._file(name).images(self._fs, group)
        self._kept = ((name, group), images)
        return images
