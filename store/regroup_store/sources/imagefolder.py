"""A folder of class folders with one file per image, as torchvision's ImageFolder reads it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from regroup_store.errors import StoreUsageError
from regroup_store.sources.files import (
    EXTENSIONS,
    is_folder,
    is_image,
    list_folder,
    read_files,
    require_utf8,
)
from regroup_store.sources.left_out import HIDDEN, NO_IMAGE, LeftOut, is_hidden
from regroup_store.sources.limits import DEFAULT_LARGEST
from regroup_store.sources.places import require_folder, some_names
from regroup_store.sources.source import SourceRow, absolute, file_system, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# A folder of such folders holds no classes: it is one level too high.
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))


class ImageFolderSource:
    """Class folders sorted by name; their images (by extension, any case) at any depth, sorted.

    Hidden files and folders are left out, and counted as other files that are no images are. Sample
    ids and locators are paths relative to the root. Symbolic links are followed: whoever made the
    folder chose them. A locator comes from an index file, and may not leave the root.
    """

    def __init__(self, location: str, spec: str = "", largest: int = DEFAULT_LARGEST) -> None:
        """Find the class folders; the images are only listed by `rows`.

        Args:
            location: of the root folder.
            spec: of the source that this folder is a part of, if it is not one itself.
            largest: bytes that one image may have.

        Raises:
            StoreUsageError: there is no such folder, or no class folder in it.
        """
        self._fs, self._root = file_system(location, f"imagefolder:{location}")
        self._largest = largest
        self.left_out = LeftOut()
        self.spec = spec or f"imagefolder:{absolute(self._fs, self._root)}"
        require_folder(self._fs, self._root, self.spec, "the folder of the class folders")
        folders = [name for name, entry in self._entries("") if is_folder(self._fs, entry)]
        self.class_names = tuple(sorted(folders))
        self._check_classes()

    def _check_classes(self) -> None:
        if not self.class_names:
            raise StoreUsageError(
                f"{self.spec}: there is no class folder in it; expected one folder of images "
                "per class"
            )
        if _SPLITS.issuperset(name.lower() for name in self.class_names):
            raise StoreUsageError(
                f"{self.spec}: its folders are splits ({some_names(self.class_names)}), not "
                "classes; name the folder of one split"
            )

    def rows(self) -> Iterator[SourceRow]:
        """All images, by class and then by path.

        Raises:
            StoreUsageError: a class folder without images, or a file name that is not UTF-8.
        """
        self.left_out.clear()
        for name, entry in self._entries("", self.left_out):
            if not is_folder(self._fs, entry):
                self.left_out.add("beside the class folders", name)
        for label in range(len(self.class_names)):
            yield from self._class_rows(label)

    def read(self, locators: Sequence[str]) -> list[bytes | OSError]:
        """Bytes of the files.

        Raises:
            StoreUsageError: a path leaves the root.
        """
        return read_files(self._fs, self._root, locators, self.spec, self._largest)

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
            self.left_out.add("links back to a folder above", folder)
            return
        for name, entry in self._entries(folder, self.left_out):
            path = f"{folder}/{name}"
            if is_folder(self._fs, entry):
                yield from self._images(path, (*above, here))
            elif not is_image(name):
                self.left_out.add(NO_IMAGE, path)
            else:
                yield require_utf8(path, self.spec), stamp(self._fs, entry)

    def _entries(
        self, folder: str, left_out: LeftOut | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and information of what a folder below the root holds, but for what is hidden."""
        entries = list_folder(self._fs, f"{self._root}/{folder}".rstrip("/") or "/")
        for name, entry in sorted(entries, key=lambda found: found[0]):
            if not is_hidden(name):
                yield name, entry
            elif left_out is not None:
                left_out.add(HIDDEN, f"{folder}/{name}".lstrip("/"))
