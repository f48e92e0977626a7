"""The pages of a Parquet column, by their headers: what reading them would cost.

The sizes in a file's footer need not be true, and 10 kB can stand for gigabytes; the reader takes
each page's size from the page's own header (Thrift's compact protocol, parquet-format 2.11).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# Of a page's header: a few numbers, and the smallest and largest value of some writers.
LARGEST_PAGE_HEADER = 1 << 16
_DEEPEST = 8
# Of a header: kind of page, bytes unpacked, bytes packed.
_FIELDS = (1, 2, 3)
_DICTIONARY = 2
# Of the page itself, whichever kind it is: how many values, and how they are encoded.
_VALUES, _ENCODING = ((5, 1), (7, 1), (8, 1)), ((5, 2), (7, 2), (8, 4))
# PLAIN and DELTA_LENGTH_BYTE_ARRAY: a page's values have no more bytes than the page.
_AS_THEY_ARE = (0, 6)
MOST_PAGES = 1_000_000
# What Arrow 26 was seen to take: copies of a page, of a dictionary, and of values as they grow.
_COPIES, _DICTIONARIES, _GROWN = 5, 3, 3
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 0, 1, 2, 3, 7, 8, 12


class PageError(OSError):
    """A page's header cannot be read."""


@dataclass
class _Thrift:
    """Reads the fields of a struct, and skips those that are not asked for."""

    data: bytes
    place: int = 0

    def byte(self) -> int:
        """The next byte."""
        if self.place >= len(self.data):
            raise PageError("a page's header is cut short or too large")
        self.place += 1
        return self.data[self.place - 1]

    def number(self) -> int:
        """An unsigned number of at most 64 bits."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise PageError("a page's header is damaged")

    def signed(self) -> int:
        """A zigzag number."""
        value = self.number()
        return (value >> 1) ^ -(value & 1)

    def numbers(self, above: tuple[int, ...] = ()) -> dict[tuple[int, ...], int]:
        """The integers of a struct and of those in it, by the ids on the way."""
        found: dict[tuple[int, ...], int] = {}
        field = 0
        while (head := self.byte()) & 0x0F != _STOP:
            field = field + (head >> 4) if head >> 4 else self.signed()
            kind, path = head & 0x0F, (*above, field)
            if _BYTE < kind < _DOUBLE:
                found[path] = self.signed()
            elif kind == _STRUCT and len(path) < _DEEPEST:
                found.update(self.numbers(path))
            else:
                self._skip(kind)
        return found

    def _skip(self, kind: int) -> None:
        if kind not in (_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY):  # a page's header has no others
            raise PageError("a page's header is damaged")
        if kind not in (_TRUE, _FALSE):
            length = {_BYTE: 1, _DOUBLE: 8}.get(kind) or self.number()
            self.place += length


@dataclass(frozen=True)
class PageSizes:
    """Bytes of the pages of a column of one row group.

    Attributes:
        dictionary: of the unpacked dictionary.
        packed: of the largest page as it lies in the file.
        unpacked: of the largest page of values.
        repeated: the most that one value can have that is stored once and stands for many.
        plain: values and bytes of each page whose values are stored as they are.
    """

    dictionary: int = 0
    packed: int = 0
    unpacked: int = 0
    repeated: int = 0
    plain: tuple[tuple[int, int], ...] = ()

    @property
    def held(self) -> int:
        """What is in memory beside the values that were read."""
        return _DICTIONARIES * self.dictionary + self.unpacked

    def cost(self, rows: int) -> int:
        """The most that reading `rows` values at once takes: an estimate from above."""
        pages = _DICTIONARIES * self.dictionary + _COPIES * max(self.packed, self.unpacked)
        return pages + self._plain(rows) + _GROWN * rows * self.repeated

    def _plain(self, rows: int) -> int:
        """The largest sum of the pages that `rows` consecutive values can be of."""
        largest = size = values = first = 0
        for last, (count, length) in enumerate(self.plain):
            size, values = size + length, values + count
            # Without its first and last page a run has at most rows - 2 values.
            while last > first and values - self.plain[first][0] - count > rows - 2:
                size, values = size - self.plain[first][1], values - self.plain[first][0]
                first += 1
            largest = max(largest, size)
        return largest


def _sizes(pages: list[_Page]) -> PageSizes:
    dictionary = max((page.unpacked for page in pages if page.kind == _DICTIONARY), default=0)
    values = [page for page in pages if page.kind != _DICTIONARY]
    unpacked = max((page.unpacked for page in values), default=0)
    copied = [page for page in values if page.encoding not in _AS_THEY_ARE]
    return PageSizes(
        dictionary=dictionary,
        packed=max((page.packed for page in pages), default=0),
        unpacked=unpacked,
        repeated=max(dictionary, *(page.unpacked for page in copied)) if copied else 0,
        plain=tuple((p.values, p.unpacked) for p in values if p.encoding in _AS_THEY_ARE),
    )


def page_sizes(fs: Any, path: str, column: pq.ColumnChunkMetaData) -> PageSizes:
    """Return the sizes of the pages of a column of one row group.

    Raises:
        OSError: a header cannot be read.
    """
    starts = [column.data_page_offset]
    if column.has_dictionary_page and column.dictionary_page_offset:
        starts.append(column.dictionary_page_offset)
    place = min(starts)
    end = place + column.total_compressed_size
    pages: list[_Page] = []
    window = _Window(fs, path, end)
    while place < end:
        page = window.page(place)
        pages.append(page)
        if len(pages) > MOST_PAGES:
            raise PageError(f"its row group has more than {MOST_PAGES} pages")
        place += page.header + page.packed
    return _sizes(pages)


@dataclass(frozen=True, slots=True)
class _Page:
    """What a page's header says, and its own length in bytes."""

    kind: int
    unpacked: int
    packed: int
    values: int
    encoding: int
    header: int


@dataclass
class _Window:
    """A piece of a file in which headers are, so that small pages take few reads."""

    fs: Any
    path: str
    end: int
    start: int = 0
    data: bytes = b""

    def page(self, place: int) -> _Page:
        """Read the header at `place`."""
        if self.start <= place < self.start + len(self.data):
            try:
                return self._parsed(place)
            except PageError:  # it goes on behind the window
                pass
        end = min(self.end, place + LARGEST_PAGE_HEADER)
        self.start, self.data = place, bytes(self.fs.cat_file(self.path, place, end))
        return self._parsed(place)

    def _parsed(self, place: int) -> _Page:
        thrift = _Thrift(self.data, place - self.start)
        found = thrift.numbers()
        kind, unpacked, packed = (found.get((field,), -1) for field in _FIELDS)
        values, encoding = (
            next((found[key] for key in keys if key in found), -1) for keys in (_VALUES, _ENCODING)
        )
        if min(kind, unpacked, packed, values) < 0:
            raise PageError("a page's header is damaged")
        return _Page(kind, unpacked, packed, values, encoding, thrift.place - (place - self.start))
