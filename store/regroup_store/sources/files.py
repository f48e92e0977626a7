"""The files of a dataset: listed, found by name, and read many at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from regroup_store.errors import StoreUsageError
from regroup_store.sources.source import error_message, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# Files read at once: an object store answers late, but many requests at a time.
READERS = 16
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".webp", ".tif", ".tiff")

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
        raise StoreUsageError(f"{path} cannot be listed: {error_message(error)}") from error
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


def find_by_name(fs: Any, patterns: Iterable[str], spec: str, example: str) -> dict[str, str]:
    """Find the files that the glob patterns match: their paths by name, sorted by name.

    Args:
        fs: the file system.
        patterns: globs on it.
        spec: of the source, for errors.
        example: of a valid spec, for errors.

    Raises:
        StoreUsageError: a pattern matches nothing, or two files share their name.
    """
    matches = [path for pattern in patterns for path in _matches(fs, pattern, spec, example)]
    paths: dict[str, str] = {}
    for path in sorted(sorted(set(matches)), key=file_name):
        if (name := file_name(path)) in paths:
            raise StoreUsageError(
                f"{spec}: {paths[name]} and {path} have the same name, which "
                "sample ids are made of; rename one, or index them as two datasets"
            )
        paths[name] = path
    return paths


def _matches(fs: Any, pattern: str, spec: str, example: str) -> list[str]:
    found = [path for path in fs.glob(pattern) if fs.isfile(path)]
    if not found:
        missing = "" if spec.endswith(pattern) else f" {file_name(pattern)}"
        raise StoreUsageError(f"{spec}: no file matches{missing}; name files, as in {example!r}")
    return found


def read_concurrently(
    read: Callable[[Place], bytes | OSError], places: Sequence[Place]
) -> list[bytes | OSError]:
    """Call `read` for each of `places`, many at a time; results in their order."""
    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(read, places))


def read_files(fs: Any, root: str, locators: Sequence[str], spec: str) -> list[bytes | OSError]:
    """Read the files at these paths below `root`.

    Raises:
        StoreUsageError: a path leaves the root.
    """
    for locator in locators:
        _check_inside(locator, spec)

    def read(locator: str) -> bytes | OSError:
        """The bytes of one file, or why it cannot be read."""
        try:
            return bytes(fs.cat_file(f"{root}/{locator}"))
        except OSError as error:
            return unreadable(locator, error)

    return read_concurrently(read, locators)


def _check_inside(locator: str, spec: str) -> None:
    path = PurePosixPath(locator)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in locator:
        raise StoreUsageError(f"{locator!r} is not a path inside {spec}")
