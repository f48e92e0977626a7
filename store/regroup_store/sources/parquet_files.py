"""One Parquet file of a dataset: its columns, its labels, and its images a part at a time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regroup_store.errors import StoreUsageError
from regroup_store.sources.limits import TooLargeError, above
from regroup_store.sources.parquet_pages import PageSizes, page_sizes
from regroup_store.sources.source import MAX_CLASSES, error_message

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels")
# Of the limit; a parsed footer takes some thirty times its bytes.
FOOTER_PARTS = 32
# Rows that a file may state whatever its size: equal rows cost next to nothing.
FREE_ROWS = 2**20
_LABELS_AT_ONCE = _ROWS_AT_ONCE = 1 << 16
_BUFFER = 1 << 16
_UNREADABLE = (OSError, pa.ArrowException)


@dataclass(frozen=True)
class DatasetFile:
    """The footer of one file.

    Attributes:
        name: of the file.
        path: of the file.
        footer: as parsed.
        starts: first row of each row group, and at the end their total.
        image_column: Parquet path of the column of bytes.
        label_column: name of the column of labels.
        class_names: of its ClassLabel, empty where there is none.
        largest: bytes that a sample, a page or a part of a row group may cost.
        known: sizes of the pages of columns of row groups that were looked at.
    """

    name: str
    path: str
    footer: pq.FileMetaData
    starts: list[int]
    image_column: str
    label_column: str
    class_names: tuple[str, ...]
    largest: int
    known: dict[tuple[str, int], PageSizes] = field(default_factory=dict)

    def labels(self, fs: Any) -> Iterator[int]:
        """Label of every row.

        Raises:
            StoreUsageError: a label is null, or cannot be a class index.
        """
        row = 0
        try:
            for group in range(len(self.starts) - 1):
                for part in self.column(fs, self.label_column, group).parts(_LABELS_AT_ONCE):
                    for label in part.to_pylist():
                        yield self._class_index(row, label)
                        row += 1
        except _UNREADABLE as error:
            raise StoreUsageError(
                f"{self.path}: labels unreadable: {error_message(error)}"
            ) from error
        if row != self.starts[-1]:
            raise StoreUsageError(f"{self.path} has {row} labels for {self.starts[-1]} rows")

    def images(self, fs: Any, group: int) -> GroupImages:
        """Encoded bytes of a row group.

        Raises:
            OSError: it cannot be read, or has a page that is too large.
        """
        rows = self.starts[group + 1] - self.starts[group]
        return GroupImages(self.column(fs, self.image_column, group), max(1, rows))

    def _class_index(self, row: int, label: int | None) -> int:
        if label is None or not 0 <= label < MAX_CLASSES:
            unlabelled = label is None or label == -1
            remedy = "; leave out the rows without a label" if unlabelled else ""
            raise StoreUsageError(
                f"{self.name}#{row}: label {label} is not a class index; labels "
                f"({self.label_column}) count from 0{remedy}"
            )
        return label

    def column(self, fs: Any, name: str, group: int) -> GroupColumn:
        """Return a column of one row group.

        Raises:
            OSError: its pages cannot be read, or a row of it would be too large.
        """
        found = self.footer.row_group(group)
        chunks = (found.column(number) for number in range(found.num_columns))
        chunk = next((each for each in chunks if each.path_in_schema == name), None)
        if chunk is None:
            raise StoreUsageError(f"{self.path} has no column {name!r} in row group {group}")
        if (name, group) not in self.known:
            sizes = page_sizes(fs, self.path, chunk) if found.num_rows else PageSizes()
            self.known[name, group] = sizes
        sizes = self.known[name, group]
        if (cost := sizes.cost(1)) > self.largest:
            raise TooLargeError(cost, self.largest, what="is of a row group that takes")
        return GroupColumn(self, fs, name, group, sizes)


@dataclass(frozen=True)
class GroupColumn:
    """A column of one row group.

    Attributes:
        file: of the row group.
        fs: the file system.
        name: Parquet path of the column.
        group: number of the row group.
        sizes: of its pages.
    """

    file: DatasetFile
    fs: Any
    name: str
    group: int
    sizes: PageSizes

    @cached_property
    def at_once(self) -> int:
        """How many rows are read at once: half of the limit is for what is kept, if that goes."""
        counts = [_ROWS_AT_ONCE >> halved for halved in range(_ROWS_AT_ONCE.bit_length())]
        costs = {rows: self.sizes.cost(rows) for rows in counts}
        largest = self.file.largest
        fitting = (n for most in (largest // 2, largest) for n in counts if costs[n] <= most)
        return next(fitting, 1)

    @property
    def left(self) -> int:
        """Bytes that may be kept while more is read."""
        return (self.file.largest - self.sizes.cost(self.at_once)) // 2

    def parts(self, rows: int) -> Iterator[pa.Array]:
        """Yield the column, at most `rows` at a time, and fewer where rows may be large."""
        with opened(self.fs, self.file.path) as file:
            # Without a buffer size an entire column of the row group would be read at once.
            reader = pq.ParquetFile(file, metadata=self.file.footer, buffer_size=_BUFFER)
            for batch in reader.iter_batches(
                min(rows, self.at_once),
                row_groups=[self.group],
                columns=[self.name],
                use_threads=False,
            ):
                yield batch.column(0)


@dataclass
class GroupImages:
    """The images of a row group, read in order and kept as long as they fit.

    Rows are asked for in order, as a rule. What comes before the part that is kept is read anew.
    """

    column: GroupColumn
    rows: int
    _lock: Lock = field(default_factory=Lock)
    _first: int = 0
    _kept: list[pa.Array] = field(default_factory=list)
    _rest: Iterator[pa.Array] | None = None

    def row(self, row: int) -> bytes | None:
        """Return the encoded bytes of a row, None where there are none.

        Raises:
            OSError: the row group cannot be read.
        """
        with self._lock:  # a thread that prefetches may read, too
            if self._rest is None or row < self._first:
                self._first, self._kept = 0, []
                self._rest = self.column.parts(self.rows)
            try:
                return self._found(row)
            except _UNREADABLE:
                self._rest = None
                raise

    def _found(self, row: int) -> bytes | None:
        place = self._first
        for part in self._kept:
            if row < place + len(part):
                return self._bytes(part, row - place)
            place += len(part)
        return self._read_on(row, place)

    def _read_on(self, row: int, place: int) -> bytes | None:
        """Read parts up to the one with `row`; of those before, as many are kept as fit."""
        for part in self._rest or ():
            self._kept.append(part)
            while self.kept_bytes(part) > self.column.left:
                self._first += len(self._kept.pop(0))
            if row < place + len(part):
                return self._bytes(part, row - place)
            place += len(part)
        raise OSError("the row group has fewer rows than the file says")

    def kept_bytes(self, part: pa.Array) -> int:
        """Bytes of what is kept besides `part`."""
        return sum(each.nbytes for each in self._kept if each is not part)

    def _bytes(self, part: pa.Array, row: int) -> bytes | None:
        column = pc.struct_field(part, "bytes") if pa.types.is_struct(part.type) else part
        if not (found := column[row]).is_valid:
            return None
        size = pc.binary_length(found).as_py()
        largest = self.column.file.largest
        if size > largest - self.column.sizes.held - part.nbytes - self.kept_bytes(part):
            raise TooLargeError(size, largest, "what is left of ")
        return bytes(found.as_py())


def opened(fs: Any, path: str) -> Any:
    """Open a file for Arrow: one on this machine without Python's copies of what is read."""
    return pa.OSFile(path) if "file" in fs.protocol else fs.open(path, "rb")


def open_file(fs: Any, name: str, path: str, label_column: str | None, largest: int) -> DatasetFile:
    """Read the footer of a file.

    Args:
        fs: the file system.
        name: of the file.
        path: of the file.
        label_column: that was named; None: one of the usual, or the only ClassLabel.
        largest: see `DatasetFile`.

    Raises:
        StoreUsageError: it is no Parquet file, or lacks the columns.
    """
    try:
        with fs.open(path, "rb") as file:
            size = _check_footer(file, path, largest)
            footer = pq.read_metadata(file)
        schema = footer.schema.to_arrow_schema()
    except _UNREADABLE as error:
        raise StoreUsageError(
            f"{path} is not a readable Parquet file: {error_message(error)}"
        ) from error
    groups = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    starts = list(accumulate(groups, initial=0))
    _check_rows(groups, size, path)
    features = _features(schema)
    images, labels = _columns(schema, features, path, label_column)
    return DatasetFile(
        name, path, footer, starts, images, labels, _names(features, labels), largest
    )


def _check_rows(groups: list[int], size: int, path: str) -> None:
    """Refuse numbers of rows that the file cannot hold: each would be listed, one by one."""
    most = FREE_ROWS + 8 * size
    if min(groups, default=0) < 0 or sum(groups) > most:
        raise StoreUsageError(
            f"{path} states {sum(groups)} rows in {size} bytes, less than a bit for each: it is "
            "damaged, or made to keep readers busy; write it again"
        )


def _check_footer(file: Any, path: str, largest: int) -> int:
    """Refuse a footer that would not fit: its last eight bytes are its length and PAR1.

    Returns:
        The size of the file.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    length = int.from_bytes(file.read(4), "little")
    file.seek(0)
    if size >= length + 8 and length > largest // FOOTER_PARTS:
        raise StoreUsageError(
            f"{path} has a footer of {length} bytes, {above(largest, 'a part of ')}; write it with "
            "fewer columns and row groups"
        )
    return int(size)


def _columns(
    schema: pa.Schema, features: dict[str, Any], path: str, label_column: str | None
) -> tuple[str, str]:
    """Parquet path of the column of bytes, and name of the column of labels."""
    images = [column for name in IMAGE_COLUMNS if (column := _bytes_of(schema, name))]
    others = [column for name in schema.names if (column := _bytes_of(schema, name))]
    labels = _label_columns(schema, features, label_column)
    if not images[:1] and len(others) != 1:
        raise StoreUsageError(
            f"{path} needs a column 'image' (struct with the field 'bytes', or binary); its "
            f"columns are {_described(schema)}"
        )
    if len(labels) > 1:
        raise StoreUsageError(
            f"{path} has several columns of labels ({', '.join(labels)}); choose one by "
            "--label-column"
        )
    if not labels:
        raise StoreUsageError(
            f"{path} needs an integer column {label_column or 'label'!r}; its columns are "
            f"{_described(schema)}; --label-column names another"
        )
    return [*images, *others][0], labels[0]


def _label_columns(
    schema: pa.Schema, features: dict[str, Any], label_column: str | None
) -> list[str]:
    """The columns of labels to choose from: the one that was named, a usual one, or ClassLabels."""
    if label_column is not None:
        return [label_column] if _is_integer(schema, label_column) else []
    usual = [name for name in LABEL_COLUMNS if _is_integer(schema, name)]
    return usual[:1] or [
        name for name in schema.names if _is_integer(schema, name) and _names(features, name)
    ]


def _described(schema: pa.Schema) -> str:
    shown = [f"{field.name}: {field.type}"[:99] for field in schema]
    return ", ".join(shown[:20]) + (", ..." if len(shown) > 20 else "") or "none"


def _bytes_of(schema: pa.Schema, name: str) -> str | None:
    if schema.names.count(name) != 1:
        return None
    kind = schema.field(name).type
    if not pa.types.is_struct(kind):
        return name if _is_binary(kind) else None
    index = kind.get_field_index("bytes")
    return f"{name}.bytes" if index >= 0 and _is_binary(kind.field(index).type) else None


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_integer(schema: pa.Schema, name: str) -> bool:
    once = schema.names.count(name) == 1
    return once and bool(pa.types.is_integer(schema.field(name).type))


def _features(schema: pa.Schema) -> dict[str, Any]:
    """The features in Hugging Face's metadata; empty where there are none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _names(features: dict[str, Any], column: str) -> tuple[str, ...]:
    """The names of the ClassLabel `column`; empty where it is none."""
    feature = features.get(column)
    names = feature.get("names") if isinstance(feature, dict) else None
    usable = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if usable and names else ()
