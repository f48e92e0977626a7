"""A folder of class folders with one file per image, as torchvision's ImageFolder reads it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regroup_store.errors import StoreUsageError
from regroup_store.sources.files import (
    EXTENSIONS,
    is_folder,
    is_image,
    list_folder,
    read_files,
    require_utf8,
)
from regroup_store.sources.source import SourceRow, absolute, file_system, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class ImageFolderSource:
    """Class folders sorted by name; their images (by extension, any case) at any depth, sorted.

    Sample ids and locators are paths relative to the root. Symbolic links are followed: whoever
    made the folder chose them. A locator comes from an index file, and may not leave the root.
    """

    def __init__(self, location: str, spec: str = "") -> None:
        """Find the class folders; the images are only listed by `rows`.

        Args:
            location: of the root folder.
            spec: of the source that this folder is a part of, if it is not one itself.

        Raises:
            StoreUsageError: there is no such folder, or no class folder in it.
        """
        self._fs, self._root = file_system(location, f"imagefolder:{location}")
        self.spec = spec or f"imagefolder:{absolute(self._fs, self._root)}"
        if not self._fs.isdir(self._root):
            raise StoreUsageError(f"{self.spec}: there is no such folder")
        entries = list_folder(self._fs, self._root)
        folders = (name for name, entry in entries if is_folder(self._fs, entry))
        self.class_names = tuple(sorted(folders))
        if not self.class_names:
            raise StoreUsageError(
                f"{self.spec}: there is no class folder in it; expected one folder of images "
                "per class"
            )

    def rows(self) -> Iterator[SourceRow]:
        """All images, by class and then by path.

        Raises:
            StoreUsageError: a class folder without images, or a file name that is not UTF-8.
        """
        for label in range(len(self.class_names)):
            yield from self._class_rows(label)

    def read(self, locators: Sequence[str]) -> list[bytes | OSError]:
        """Bytes of the files.

        Raises:
            StoreUsageError: a path leaves the root.
        """
        return read_files(self._fs, self._root, locators, self.spec)

    def _class_rows(self, label: int) -> list[SourceRow]:
        name = self.class_names[label]
        images = sorted(self._images(name, ()))
        if not images:
            raise StoreUsageError(
                f"{self.spec}: class folder {name!r} has no image ({' '.join(EXTENSIONS)}); "
                "add images or remove the folder"
            )
        return [SourceRow(path, label, path, stamp) for path, stamp in images]

    def _images(self, folder: str, above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        """Relative path and stamp of each image below `folder`.

        A link back to a parent folder is not followed.
        """
        here = f"{self._root}/{folder}"
        if "file" in self._fs.protocol:  # Elsewhere there are no links.
            here = os.path.realpath(here)
        if here in above:
            return
        for name, entry in list_folder(self._fs, f"{self._root}/{folder}"):
            path = f"{folder}/{name}"
            if is_folder(self._fs, entry):
                yield from self._images(path, (*above, here))
            elif is_image(name):
                yield require_utf8(path, self.spec), stamp(self._fs, entry)
