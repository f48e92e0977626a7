"""Tar archives with random access: a member is a range of bytes, read without scanning.

Plain tar only: in a compressed one nothing can be reached without reading all that precedes it.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regroup_store.errors import StoreUsageError
from regroup_store.sources.files import file_name, read_concurrently, require_utf8
from regroup_store.sources.source import error_message, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
# A forged locator must not make a worker read an entire archive into memory.
LARGEST_IMAGE = 1 << 28
_LOCATOR = re.compile(r"(.+)#([0-9]{1,18})\+([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class TarMember:
    """A plain file in an archive.

    Attributes:
        name: of the file.
        offset: its first byte in the archive.
        size: its number of bytes.
    """

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The first byte after the data."""
        return self.offset + self.size

    def locator(self, archive: str) -> str:
        """What `Archives.read` takes."""
        return f"{archive}#{self.offset}+{self.size}"


def members(file: BinaryIO, archive: str, start: int, end: int) -> Iterator[TarMember]:
    """List the plain files of a tar archive in the order of the archive.

    Between two of them the caller may read elsewhere in `file`.

    Args:
        file: holds the archive.
        archive: names it in errors.
        start: its first byte.
        end: the first byte after it.

    Raises:
        StoreUsageError: not a plain tar, cut short, damaged, or a name that is not UTF-8.
    """
    file.seek(start)
    last = "its first file"
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it keeps all that it met
                last = repr(file_name(info.name))
                member = TarMember(info.name, info.offset_data, info.size)
                if member.end > end:
                    raise _cut_short(archive, f"{last} ends at byte {member.end} of {end}")
                if info.isreg() and not info.issparse():
                    require_utf8(info.name, archive)
                    yield member
            _check_end(file, archive, tar.offset, end, last)
    except tarfile.TarError as error:
        if last == "its first file":
            raise StoreUsageError(
                f"{archive} is not a plain (uncompressed) tar archive: {error_message(error)}"
            ) from error
        raise _cut_short(archive, f"after {last}: {error_message(error)}") from error
    except (OSError, ValueError, OverflowError) as error:
        raise StoreUsageError(f"{archive} cannot be read: {error_message(error)}") from error


def _check_end(file: BinaryIO, archive: str, offset: int, end: int, last: str) -> None:
    """Refuse an archive that lacks its end marker.

    tarfile takes damage, and a file that stops between two members, for the end.
    """
    file.seek(offset)
    if offset + BLOCK > end or file.read(BLOCK) != bytes(BLOCK):
        raise _cut_short(archive, f"no end of the archive, and no further file, after {last}")


def _cut_short(archive: str, found: str) -> StoreUsageError:
    return StoreUsageError(
        f"{archive} is cut short or damaged ({found}); copy or download it again"
    )


class Archives:
    """The archives that a source reads from, by name."""

    def __init__(self, fs: Any, spec: str, paths: Mapping[str, str]) -> None:
        """Remember where the archives are.

        Args:
            fs: the file system.
            spec: of the source, for errors.
            paths: of the archives, by name.
        """
        self._fs, self._spec, self._paths = fs, spec, paths
        self._sizes: dict[str, int] = {}

    def read(self, locators: Sequence[str]) -> list[bytes | OSError]:
        """Bytes of the members, in order.

        Raises:
            StoreUsageError: a locator names no archive of this source, or a range outside of it.
        """
        members = [(locator, *self._range(locator)) for locator in locators]
        return read_concurrently(self._read, members)

    def size(self, name: str) -> int:
        """Length of an archive in bytes.

        Raises:
            OSError: it does not exist.
        """
        if name not in self._sizes:
            self._sizes[name] = int(self._fs.info(self._paths[name])["size"])
        return self._sizes[name]

    def _range(self, locator: str) -> tuple[str, int, int]:
        """Archive name, first byte, and number of bytes."""
        match = _LOCATOR.fullmatch(locator)
        if match is None or match[1] not in self._paths:
            raise StoreUsageError(f"{self._spec} has no image {locator!r}")
        return match[1], int(match[2]), int(match[3])

    def _read(self, member: tuple[str, str, int, int]) -> bytes | OSError:
        locator, name, offset, size = member
        try:
            if offset + size > (length := self.size(name)):
                raise StoreUsageError(
                    f"{self._spec} has no image {locator!r}: {name} has {length} bytes; if it "
                    "was replaced, index it again"
                )
            if size > LARGEST_IMAGE:
                return OSError(f"{locator} is larger than {LARGEST_IMAGE} bytes")
            data = self._fs.cat_file(self._paths[name], offset, offset + size) if size else b""
        except OSError as error:
            return unreadable(locator, error)
        return bytes(data) if len(data) == size else OSError(f"{locator} is cut short")
