"""The entries of a tar archive, in order and in little memory whatever their headers say."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, cast

from regroup_store.errors import StoreUsageError
from regroup_store.sources.files import file_name
from regroup_store.sources.limits import LARGEST_HEADER, LONGEST_NAME
from regroup_store.sources.source import error_message

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import IO, BinaryIO

BLOCK = tarfile.BLOCKSIZE
# Bytes read at once in search of what follows the end of an archive.
_STRIDE = 1 << 20
_FIRST = "its first file"
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"BZh": ("bzip2", "bunzip2"),
}
# tarfile raises nearly anything on damaged headers.
_DAMAGE = (OSError, ValueError, ArithmeticError, LookupError, TypeError)


class HeaderFile:
    """A file from which tarfile reads headers, up to a number of bytes before each entry.

    tarfile reads as many bytes at once as a header says that a name has.
    """

    def __init__(self, file: IO[bytes], archive: str, left: int = LARGEST_HEADER) -> None:
        self._file, self._archive = file, archive
        self.left = left

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes.

        Raises:
            StoreUsageError: there are too many since the last entry.
        """
        if not 0 <= size <= self.left:
            raise StoreUsageError(
                f"{self._archive} has a header of {size} bytes (at byte {self._file.tell()}), "
                f"above the {LARGEST_HEADER} that a file needs; copy or make the archive again"
            )
        self.left -= size
        return self._file.read(size)

    def seek(self, place: int) -> int:
        """Go to a byte."""
        return self._file.seek(place)

    def tell(self) -> int:
        """Return the byte that is read next."""
        return self._file.tell()


def entries(file: BinaryIO, archive: str, start: int, end: int) -> Iterator[tarfile.TarInfo]:
    """List the entries of an archive, or of several that were joined (`tar -A`, `cat`).

    Between two of them the caller may read elsewhere in `file`.

    Args:
        file: holds the archive.
        archive: names it in errors.
        start: its first byte.
        end: the first byte after it.

    Raises:
        StoreUsageError: not a plain tar, cut short, damaged, or of headers that are too large.
    """
    place, last = yield from _one_archive(file, archive, start, end, _FIRST)
    while place is not None:
        place, last = yield from _one_archive(file, archive, place, end, last)


def _one_archive(
    file: BinaryIO, archive: str, start: int, end: int, last: str
) -> Generator[tarfile.TarInfo, None, tuple[int | None, str]]:
    """Yield the entries up to an end mark.

    Returns:
        Where the next archive begins, if one does, and the name of the last entry.
    """
    file.seek(start)
    try:
        headers = HeaderFile(file, archive)
        with tarfile.open(fileobj=headers, mode="r:") as tar:  # type: ignore[call-overload]
            while (info := tar.next()) is not None:
                tar.members.clear()  # it keeps all that it met
                last = repr(file_name(info.name)[:99])
                _check(info, tar, archive, end)
                headers.left = LARGEST_HEADER
                yield info
            offset = tar.offset
        return _next_archive(file, archive, offset, end, last), last
    except tarfile.TarError as error:
        if last == _FIRST:
            raise StoreUsageError(_no_tar(file, archive, start, error)) from error
        raise _cut_short(archive, f"after {last}: {error_message(error)}") from error
    except RecursionError as error:  # tarfile reads a header within the one before
        raise StoreUsageError(
            f"{archive} has hundreds of headers before one file; copy or make the archive again"
        ) from error
    except _DAMAGE as error:
        raise StoreUsageError(f"{archive} cannot be read: {error_message(error)}") from error


def stored_pieces(info: tarfile.TarInfo) -> list[tuple[int, int]] | None:
    """Place and bytes of each stored piece of a sparse file; None for any other."""
    return cast("list[tuple[int, int]] | None", info.sparse)


def _check(info: tarfile.TarInfo, tar: tarfile.TarFile, archive: str, end: int) -> None:
    """Refuse what no writer of archives makes."""
    pieces = stored_pieces(info)
    stored = info.size if pieces is None else sum(size for _, size in pieces)
    if stored < 0 or info.size < 0 or tar.offset <= info.offset:
        raise _cut_short(archive, f"a file of {info.size} bytes at byte {info.offset}")
    if info.isreg() and info.offset_data + stored > end:
        found = repr(file_name(info.name)[:99])
        raise _cut_short(archive, f"{found} ends at byte {info.offset_data + stored} of {end}")
    if len(info.name) > LONGEST_NAME:
        raise StoreUsageError(
            f"{archive} has a name of {len(info.name)} characters (at byte {info.offset}), above "
            f"the {LONGEST_NAME} that a path may have; rename it"
        )
    if sum(len(key) + len(value) for key, value in tar.pax_headers.items()) > LARGEST_HEADER:
        raise StoreUsageError(
            f"{archive} has headers of more than {LARGEST_HEADER} bytes for all of its files; make "
            "the archive again without them"
        )


def _next_archive(file: BinaryIO, archive: str, offset: int, end: int, last: str) -> int | None:
    """Return where after the end mark at `offset` another archive begins; None where none does.

    tarfile takes damage, and a file that stops between two members, for the end.
    """
    file.seek(offset)
    if offset + BLOCK > end or file.read(BLOCK) != bytes(BLOCK):
        raise _cut_short(archive, f"no end of the archive, and no further file, after {last}")
    for place in range(offset + BLOCK, end, _STRIDE):
        file.seek(place)
        data = file.read(min(_STRIDE, end - place))
        if rest := data.lstrip(b"\0"):
            return place + (len(data) - len(rest)) // BLOCK * BLOCK
    return None


def _no_tar(file: BinaryIO, archive: str, start: int, error: Exception) -> str:
    """Say why the first header is none."""
    file.seek(start)
    head = file.read(6)
    for magic, (kind, command) in _COMPRESSED.items():
        if head.startswith(magic):
            return (
                f"{archive} is not a plain (uncompressed) tar archive: it is compressed by {kind}, "
                f"and no image in it can be reached by its place; run {command} on it first"
            )
    return f"{archive} is not a plain (uncompressed) tar archive: {error_message(error)}"


def _cut_short(archive: str, found: str) -> StoreUsageError:
    return StoreUsageError(
        f"{archive} is cut short or damaged ({found}); copy or download it again"
    )
