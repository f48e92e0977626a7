"""Tar archives with random access: a member is a range of bytes, read without scanning.

Plain tar only: in a compressed one nothing can be reached without reading all that precedes it.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from regroup_store.errors import StoreUsageError
from regroup_store.sources.files import read_concurrently, require_utf8
from regroup_store.sources.limits import DEFAULT_LARGEST, TooLargeError
from regroup_store.sources.source import unreadable
from regroup_store.sources.tar_entries import entries, stored_pieces

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator, Mapping, Sequence
    from typing import BinaryIO

    from regroup_store.sources.left_out import LeftOut

# Of links that lead to links, as Linux allows.
_MOST_HOPS = 40
# Of the pieces of a sparse file, since its locator names each.
_MOST_PIECES = 1000
_LOCATOR = re.compile(
    r"(.+)#([0-9]{1,18})\+([0-9]{1,18})((?:/[0-9]{1,18}\+[0-9]{1,18})*)", re.DOTALL
)
Pieces = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file in an archive.

    Attributes:
        name: of the file.
        offset: its first byte in the archive.
        size: its number of bytes.
        pieces: of a sparse file: place in the file and bytes of each piece that is stored, one
            after the other from `offset`; zeros are between them. Empty: all is stored.
    """

    name: str
    offset: int
    size: int
    pieces: Pieces = ()

    @property
    def stored(self) -> int:
        """Bytes in the archive."""
        return sum(size for _, size in self.pieces) if self.pieces else self.size

    @property
    def end(self) -> int:
        """The first byte after the data."""
        return self.offset + self.stored

    def locator(self, archive: str) -> str:
        """What `Archives.read` takes."""
        pieces = "".join(f"/{place}+{size}" for place, size in self.pieces)
        return f"{archive}#{self.offset}+{self.size}{pieces}"

    def content(self, stored: bytes) -> bytes:
        """The bytes of the file, made of those in the archive."""
        if not self.pieces:
            return stored
        content, read = bytearray(self.size), 0
        for place, size in self.pieces:
            content[place : place + size] = stored[read : read + size]
            read += size
        return bytes(content)


def members(
    file: BinaryIO, archive: str, start: int, end: int, left_out: LeftOut
) -> Iterator[TarMember]:
    """List the files of a tar archive in the order of the archive; links are files as well.

    Between two of them the caller may read elsewhere in `file`. An archive with links is scanned
    three times, and what they lead to is kept in memory.

    Args:
        file: holds the archive.
        archive: names it in errors.
        start: its first byte.
        end: the first byte after it.
        left_out: counts entries that are no files.

    Raises:
        StoreUsageError: not a plain tar, cut short, damaged, or a name that is not UTF-8.
    """
    linked: dict[str, TarMember] | None = None
    for info in entries(file, archive, start, end):
        if info.islnk() or info.issym():
            linked = _linked(file, archive, start, end) if linked is None else linked
            if (found := linked.get(_normal(info.name))) is not None:
                yield replace(found, name=require_utf8(info.name, archive))
            else:
                left_out.add("links to no file of the archive", info.name)
        elif info.isreg():
            yield _member(info, archive)
        elif not info.isdir():
            left_out.add("devices and pipes", info.name)


def _member(info: tarfile.TarInfo, archive: str) -> TarMember:
    pieces: Pieces
    name, pieces = require_utf8(info.name, archive), ()
    if (found := stored_pieces(info)) is not None:
        pieces = tuple((place, size) for place, size in found if size) or ((0, 0),)
    return TarMember(name, info.offset_data, info.size, _checked(pieces, info.size, name, archive))


def _checked(pieces: Pieces, size: int, name: str, where: str) -> Pieces:
    """The pieces of a sparse file, in order and within it; an empty one stands for only zeros."""
    ends = [0, *(place + max(0, length) for place, length in pieces)]
    within = all(place >= before for before, (place, _) in zip(ends, pieces, strict=False))
    if len(pieces) > _MOST_PIECES or not within or ends[-1] > size:
        raise StoreUsageError(
            f"{where}: {name[:99]!r} is a sparse file of {len(pieces)} pieces that cannot be "
            "read; pack it without --sparse"
        )
    return pieces


def _linked(file: BinaryIO, archive: str, start: int, end: int) -> dict[str, TarMember]:
    """The file that each link of an archive leads to, by the link's name."""
    targets = {
        _normal(info.name): _target(info)
        for info in entries(file, archive, start, end)
        if info.islnk() or info.issym()
    }
    wanted = {name: _followed(name, targets) for name in targets}
    places: dict[str, TarMember] = {}
    sought = set(wanted.values())
    for info in entries(file, archive, start, end):
        if info.isreg() and (name := _normal(info.name)) in sought:
            if name in places:
                raise StoreUsageError(
                    f"{archive} holds {name[:99]!r} twice, and a link to it; remove one of them"
                )
            places[name] = _member(info, archive)
    return {name: places[path] for name, path in wanted.items() if path in places}


def _normal(name: str) -> str:
    return posixpath.normpath(name)


def _target(info: tarfile.TarInfo) -> str:
    """The path in the archive that a link names: a hard link's from the top."""
    folder = posixpath.dirname(info.name) if info.issym() else ""
    return posixpath.normpath(posixpath.join(folder, info.linkname))


def _followed(path: str, targets: Mapping[str, str]) -> str:
    """`path` with its links replaced, those among its folders too; "" for a circle."""
    for _ in range(_MOST_HOPS):
        parts = path.split("/")
        heads = ("/".join(parts[: count + 1]) for count in range(len(parts)))
        if (link := next((head for head in heads if head in targets), None)) is None:
            return path
        path = posixpath.normpath(targets[link] + path[len(link) :])
    return ""


class Archives:
    """The archives that a source reads from, by name."""

    def __init__(
        self, fs: Any, spec: str, paths: Mapping[str, str], largest: int = DEFAULT_LARGEST
    ) -> None:
        """Remember where the archives are.

        Args:
            fs: the file system.
            spec: of the source, for errors.
            paths: of the archives, by name.
            largest: bytes that one file may have: a forged locator must not make a worker read an
                entire archive into memory.
        """
        self._fs, self._spec, self._paths, self._largest = fs, spec, paths, largest
        self._sizes: dict[str, int] = {}

    def read(self, locators: Sequence[str]) -> list[bytes | OSError]:
        """Bytes of the members, in order.

        Raises:
            StoreUsageError: a locator names no archive of this source, or a range outside of it.
        """
        return read_concurrently(self._read, [self._found(locator) for locator in locators])

    def size(self, name: str) -> int:
        """Length of an archive in bytes.

        Raises:
            OSError: it does not exist.
        """
        if name not in self._sizes:
            self._sizes[name] = int(self._fs.info(self._paths[name])["size"])
        return self._sizes[name]

    def _found(self, locator: str) -> tuple[str, str, TarMember]:
        """The locator, its archive's name, and the member."""
        match = _LOCATOR.fullmatch(locator)
        if match is None or match[1] not in self._paths:
            raise StoreUsageError(f"{self._spec} has no image {locator[:99]!r}")
        texts = [piece.split("+") for piece in match[4].split("/")[1:]]
        pieces = tuple((int(place), int(size)) for place, size in texts)
        size = int(match[3])
        pieces = _checked(pieces, size, locator, self._spec)
        return locator, match[1], TarMember(locator, int(match[2]), size, pieces)

    def _read(self, found: tuple[str, str, TarMember]) -> bytes | OSError:
        locator, name, member = found
        try:
            if member.end > (length := self.size(name)):
                raise StoreUsageError(
                    f"{self._spec} has no image {locator!r}: {name} has {length} bytes; if it "
                    "was replaced, index it again"
                )
            if member.size > self._largest:
                return OSError(f"{locator} {TooLargeError(member.size, self._largest)}")
            data = b""
            if member.stored:
                data = bytes(self._fs.cat_file(self._paths[name], member.offset, member.end))
        except OSError as error:
            return unreadable(locator, error)
        short = len(data) != member.stored
        return OSError(f"{locator} is cut short") if short else member.content(data)
