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
_UNCOMPRESSED, _COMPRESSED = 2, 3
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = (
    *(0, 1, 2, 3),
    *(7, 8, 9, 10, 11, 12),
)


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

    def numbers(self, depth: int = 0) -> dict[int, int]:
        """The integer fields of a struct, by their id; all others are skipped."""
        found: dict[int, int] = {}
        field = 0
        while (head := self.byte()) & 0x0F != _STOP:
            field = field + (head >> 4) if head >> 4 else self.signed()
            kind = head & 0x0F
            if _BYTE < kind < _DOUBLE:
                found[field] = self.signed()
            else:
                self._skip(kind, depth)
        return found

    def _skip(self, kind: int, depth: int) -> None:
        if depth > _DEEPEST or kind in (_SET, _MAP, _LIST):  # a page's header has none
            raise PageError("a page's header is damaged")
        if kind == _STRUCT:
            self.numbers(depth + 1)
        elif kind not in (_TRUE, _FALSE):
            length = {_BYTE: 1, _DOUBLE: 8}.get(kind) or self.number()
            self.place += length


def largest_page(fs: Any, path: str, column: pq.ColumnChunkMetaData) -> int:
    """Return the bytes of the largest page of a column of one row group, packed or unpacked.

    Raises:
        OSError: a header cannot be read.
    """
    starts = [column.data_page_offset]
    if column.has_dictionary_page and column.dictionary_page_offset:
        starts.append(column.dictionary_page_offset)
    place = min(starts)
    end = place + column.total_compressed_size
    largest, window = 0, _Window(fs, path, end)
    while place < end:
        unpacked, packed, length = window.page(place)
        largest = max(largest, unpacked, packed)
        place += length + packed
    return largest


@dataclass
class _Window:
    """A piece of a file in which headers are, so that small pages take few reads."""

    fs: Any
    path: str
    end: int
    start: int = 0
    data: bytes = b""

    def page(self, place: int) -> tuple[int, int, int]:
        """Bytes of the page at `place`, unpacked and packed, and of its header."""
        if self.start <= place < self.start + len(self.data):
            try:
                return self._parsed(place)
            except PageError:  # it goes on behind the window
                pass
        end = min(self.end, place + LARGEST_PAGE_HEADER)
        self.start, self.data = place, bytes(self.fs.cat_file(self.path, place, end))
        return self._parsed(place)

    def _parsed(self, place: int) -> tuple[int, int, int]:
        thrift = _Thrift(self.data, place - self.start)
        sizes = thrift.numbers()
        unpacked, packed = sizes.get(_UNCOMPRESSED, -1), sizes.get(_COMPRESSED, -1)
        if min(unpacked, packed) < 0:
            raise PageError("a page's header is damaged")
        return unpacked, packed, thrift.place - (place - self.start)
