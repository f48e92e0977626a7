"""Parquet files in the Hugging Face layout: an image column of bytes and an integer label."""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regroup_store.errors import StoreUsageError
from regroup_store.sources.files import find_by_name
from regroup_store.sources.source import (
    SourceRow,
    absolute,
    error_message,
    file_system,
    stamp,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IMAGE_COLUMNS = ("image", "img")
# Without names the largest label gives the number of classes: beyond this it cannot be one.
MAX_CLASSES = 1_000_000
_EXAMPLE = "parquet:data/test-*.parquet"


class ParquetSource:
    """The files that a glob matches, sorted by name.

    Columns: `image` (or `img`), a struct with the field `bytes`, or binary itself; `label`, an
    integer. Sample ids and locators are ``<file name>#<row in the file>``. Reading takes whole
    row groups, and keeps the last one, since blocks run along the files.
    """

    def __init__(self, location: str) -> None:
        """Find the files and check the first; `rows` checks the others.

        Raises:
            StoreUsageError: nothing matches, two files share their name, or columns are missing.
        """
        self._fs, pattern = file_system(location, f"parquet:{location}")
        self.spec = f"parquet:{absolute(self._fs, pattern)}"
        self._paths = find_by_name(self._fs, [pattern], self.spec, _EXAMPLE)
        self._opened: dict[str, _File] = {}
        self._kept: tuple[tuple[str, int], pa.ChunkedArray] | None = None
        self._file(next(iter(self._paths)))

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
        if not any(file.starts[-1] for file in self._files()):
            raise StoreUsageError(f"{self.spec}: the files have no rows")
        for file in self._files():
            version = stamp(self._fs, self._fs.info(file.path))
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

    def _files(self) -> Iterator[_File]:
        return (self._file(name) for name in self._paths)

    def _check_label(self, place: str, label: int) -> None:
        classes = len(self.class_names)
        if label >= classes:
            raise StoreUsageError(
                f"{place}: label {label} is not an index of the {classes} classes that the file "
                "names"
            )

    def _file(self, name: str) -> _File:
        if name not in self._opened:
            self._opened[name] = _open_file(self._fs, name, self._paths[name])
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
            data = self._row_group(name, group)[row].as_py()
        except (OSError, pa.ArrowException) as error:
            return unreadable(locator, error)
        return OSError(f"{locator} has no image bytes") if data is None else bytes(data)

    def _row_group(self, name: str, group: int) -> pa.ChunkedArray:
        kept = self._kept  # read once: a thread that prefetches may replace it
        if kept is not None and kept[0] == (name, group):
            return kept[1]
        images = self._file(name).images(self._fs, group)
        self._kept = ((name, group), images)
        return images


@dataclass(frozen=True)
class _File:
    """The footer of one file.

    Attributes:
        name: of the file.
        path: of the file.
        footer: as parsed.
        starts: first row of each row group, and at the end their total.
        image_column: Parquet path of the column of bytes.
        class_names: of its ClassLabel, empty where there is none.
    """

    name: str
    path: str
    footer: pq.FileMetaData
    starts: list[int]
    image_column: str
    class_names: tuple[str, ...]

    def labels(self, fs: Any) -> list[int]:
        """Label of every row.

        Raises:
            StoreUsageError: a label is null, or cannot be a class index.
        """
        try:
            labels: list[int | None] = self._columns(fs, "label").to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise StoreUsageError(
                f"{self.path}: labels unreadable: {error_message(error)}"
            ) from error
        for row, label in enumerate(labels):
            if label is None or not 0 <= label < MAX_CLASSES:
                raise StoreUsageError(
                    f"{self.name}#{row}: label {label} is not a class index; labels count from 0"
                )
        return [label for label in labels if label is not None]

    def images(self, fs: Any, group: int) -> pa.ChunkedArray:
        """Encoded bytes of a row group, null where there are none."""
        column = self._columns(fs, self.image_column, [group])
        return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column

    def _columns(self, fs: Any, column: str, groups: list[int] | None = None) -> pa.ChunkedArray:
        with fs.open(self.path, "rb") as file:
            reader = pq.ParquetFile(file, metadata=self.footer)
            groups = list(range(len(self.starts) - 1)) if groups is None else groups
            return reader.read_row_groups(groups, columns=[column]).column(0)


def _open_file(fs: Any, name: str, path: str) -> _File:
    try:
        with fs.open(path, "rb") as file:
            footer = pq.read_metadata(file)
        schema = footer.schema.to_arrow_schema()
    except (OSError, pa.ArrowException) as error:
        raise StoreUsageError(
            f"{path} is not a readable Parquet file: {error_message(error)}"
        ) from error
    groups = (footer.row_group(group).num_rows for group in range(footer.num_row_groups))
    starts = list(accumulate(groups, initial=0))
    return _File(name, path, footer, starts, _image_column(schema, path), _class_label(schema))


def _image_column(schema: pa.Schema, path: str) -> str:
    """Parquet path of the column of bytes.

    Raises:
        StoreUsageError: there is none, or no integer label.
    """
    images = [column for name in IMAGE_COLUMNS if (column := _bytes_of(schema, name))]
    if not images or not _is_integer(schema, "label"):
        found = ", ".join(f"{field.name}: {field.type}" for field in schema) or "none"
        raise StoreUsageError(
            f"{path} needs a column 'image' (struct with the field 'bytes', or binary) and an "
            f"integer column 'label'; its columns are {found}"
        )
    return images[0]


def _bytes_of(schema: pa.Schema, name: str) -> str | None:
    if name not in schema.names:
        return None
    kind = schema.field(name).type
    if not pa.types.is_struct(kind):
        return name if _is_binary(kind) else None
    index = kind.get_field_index("bytes")
    return f"{name}.bytes" if index >= 0 and _is_binary(kind.field(index).type) else None


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_integer(schema: pa.Schema, name: str) -> bool:
    return name in schema.names and bool(pa.types.is_integer(schema.field(name).type))


def _class_label(schema: pa.Schema) -> tuple[str, ...]:
    """Names of the ClassLabel `label` in Hugging Face's metadata; empty where there are none."""
    try:
        recorded = json.loads((schema.metadata or {})[b"huggingface"])
        names = recorded["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    usable = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if usable else ()
