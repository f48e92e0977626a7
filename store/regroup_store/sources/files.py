"""The files of a dataset: listed and read many at a time."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from regroup_store.errors import StoreUsageError
from regroup_store.sources.limits import TooLargeError
from regroup_store.sources.s3_files import S3Files
from regroup_store.sources.source import error_message, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Files read at once: an object store answers late, but many requests at a time.
READERS = 16
# Of every format that is decoded (`regroup.images.preprocessing.FORMATS`).
EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".jpe", ".jfif", ".apng", ".pbm", ".pnm", ".pfm"),
    *(".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
)

Place = TypeVar("Place")


def is_image(name: str) -> bool:
    """Whether a file is an image by its extension, in any case."""
    return name.lower().endswith(EXTENSIONS)


def file_name(path: str) -> str:
    """The name of the file at `path`."""
    return path.rpartition("/")[2]


def list_folder(fs: Any, path: str) -> list[tuple[str, dict[str, Any]]]:
    """List the name of each entry of a folder, and its file system's information about it.

    Raises:
        StoreUsageError: the folder cannot be listed.
    """
    try:
        found: list[dict[str, Any]] = fs.ls(path, detail=True)
    except OSError as error:
        raise StoreUsageError(
            f"{path} cannot be listed: {error_message(error)}; check that this user may read it"
        ) from error
    return [(file_name(entry["name"]), entry) for entry in found]


def is_folder(fs: Any, entry: dict[str, Any]) -> bool:
    """Whether a listed entry is (a link to) a folder."""
    if entry.get("islink"):
        return bool(fs.isdir(entry["name"]))
    return bool(entry["type"] == "directory")


def require_utf8(path: str, where: str) -> str:
    """Check that a file name can be stored as text, and return `path`.

    Raises:
        StoreUsageError: it is not UTF-8.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise StoreUsageError(f"{where}: the file name {path!r} is not UTF-8; rename it") from error
    return path


def read_concurrently(
    read: Callable[[Place], bytes | OSError], places: Sequence[Place]
) -> list[bytes | OSError]:
    """Call `read` for each of `places`, many at a time; results in their order."""
    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(read, places))


def read_files(
    fs: Any, root: str, locators: Sequence[str], spec: str, largest: int
) -> list[bytes | OSError]:
    """Read the files at these paths below `root`, none of more than `largest` bytes.

    Raises:
        StoreUsageError: a path leaves the root.
    """
    for locator in locators:
        _check_inside(locator, spec)

    def read(locator: str) -> bytes | OSError:
        """The bytes of one file, or why it cannot be read."""
        try:
            return read_whole(fs, f"{root}/{locator}", largest)
        except TooLargeError as error:
            return OSError(f"{locator} {error}")
        except OSError as error:
            return unreadable(locator, error)

    return read_concurrently(read, locators)


def read_whole(fs: Any, path: str, largest: int) -> bytes:
    """Read a file whose size is looked at before.

    Raises:
        TooLargeError: it has more than `largest` bytes.
        OSError: it cannot be read, or is neither a file nor a link to one.
    """
    if isinstance(fs, S3Files):
        return bytes(fs.cat_file(path, largest=largest))
    entry = fs.info(path)
    if entry["type"] == "other":  # a pipe would wait, and a device not end
        raise OSError(errno.EINVAL, "it is no file")
    if entry["size"] is not None and entry["size"] > largest:
        raise TooLargeError(entry["size"], largest)
    return bytes(fs.cat_file(path))


def _check_inside(locator: str, spec: str) -> None:
    path = PurePosixPath(locator)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in locator:
        raise StoreUsageError(f"{locator!r} is not a path inside {spec}")
