"""A folder of class folders with one file per image, as torchvision's ImageFolder reads it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from store.errors import StoreUsageError
from store.sources.source import SourceRow, absolute, file_system, one_line, stamp, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Files read at once: an object store answers late, but many requests at a time.
READERS = 16
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".webp", ".tif", ".tiff")


class ImageFolderSource:
    """Class folders sorted by name; their images (by extension, any case) at any depth, sorted.

    Sample ids and locators are paths relative to the root. Symbolic links are followed: whoever
    made the folder chose them. A locator comes from an index file, and may not leave the root.
    """

    def __init__(self, location: str) -> None:
        """Find the class folders; the images are only listed by `rows`.

        Raises:
            StoreUsageError: there is no such folder, or no class folder in it.
        """
        self._fs, self._root = file_system(location, f"imagefolder:{location}")
        self.spec = f"imagefolder:{absolute(self._fs, self._root)}"
        if not self._fs.isdir(self._root):
            raise StoreUsageError(f"{self.spec}: there is no such folder.")
        entries = self._entries(self._root)
        folders = (name for name, entry in entries if self._is_folder(entry))
        self.class_names = tuple(sorted(folders))
        if not self.class_names:
            raise StoreUsageError(
                f"{self.spec}: there is no class folder in it; expected one folder of images "
                "per class."
            )

    def rows(self) -> Iterator[SourceRow]:
        """All images, by class and then by path.

        Raises:
            StoreUsageError: a class folder without images, or a file name that is not UTF-8.
        """
        for label in range(len(self.class_names)):
            yield from self._class_rows(label)

    def read(self, locators: Sequence[str]) -> list[bytes | OSError]:
        """Bytes of the files; StoreUsageError for a path that leaves the root."""
        for locator in locators:
            self._check_inside(locator)
        with ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(self._read, locators))

    def _class_rows(self, label: int) -> list[SourceRow]:
        name = self.class_names[label]
        images = sorted(self._images(name, ()))
        if not images:
            raise StoreUsageError(
                f"{self.spec}: class folder {name!r} has no image ({' '.join(EXTENSIONS)}); "
                "add images or remove the folder."
            )
        return [SourceRow(path, label, path, stamp) for path, stamp in images]

    def _images(self, folder: str, above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        """Relative path and stamp of each image below `folder`.

        A link back to a folder above ends there.
        """
        here = f"{self._root}/{folder}"
        if "file" in self._fs.protocol:  # Elsewhere there are no links.
            here = os.path.realpath(here)
        if here in above:
            return
        for name, entry in self._entries(f"{self._root}/{folder}"):
            path = f"{folder}/{name}"
            if self._is_folder(entry):
                yield from self._images(path, (*above, here))
            elif name.lower().endswith(EXTENSIONS):
                yield self._as_text(path), stamp(self._fs, entry)

    def _entries(self, path: str) -> list[tuple[str, dict[str, Any]]]:
        """Name of each entry of a folder, and what its file system says of it."""
        try:
            found: list[dict[str, Any]] = self._fs.ls(path, detail=True)
        except OSError as error:
            raise StoreUsageError(f"{path} cannot be listed: {one_line(error)}") from error
        return [(entry["name"].rpartition("/")[2], entry) for entry in found]

    def _is_folder(self, entry: dict[str, Any]) -> bool:
        """Whether an entry is (a link to) a folder."""
        if entry.get("islink"):
            return bool(self._fs.isdir(entry["name"]))
        return bool(entry["type"] == "directory")

    def _as_text(self, path: str) -> str:
        """Refuse a name that no table of strings can hold."""
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise StoreUsageError(
                f"{self.spec}: the file name {path!r} is not UTF-8; rename it."
            ) from error
        return path

    def _check_inside(self, locator: str) -> None:
        path = PurePosixPath(locator)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in locator:
            raise StoreUsageError(f"{locator!r} is not a path inside {self.spec}.")

    def _read(self, locator: str) -> bytes | OSError:
        try:
            return bytes(self._fs.cat_file(f"{self._root}/{locator}"))
        except OSError as error:
            return unreadable(locator, error)
