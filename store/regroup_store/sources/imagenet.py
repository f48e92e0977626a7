"""ImageNet (ILSVRC 2012) as distributed: class folders, Kaggle's layout, untouched archives."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from regroup_store.errors import StoreUsageError
from regroup_store.sources.files import (
    file_name,
    is_folder,
    is_image,
    list_folder,
    read_files,
    require_utf8,
)
from regroup_store.sources.imagefolder import ImageFolderSource
from regroup_store.sources.imagenet_labels import (
    check_labelled,
    check_wnids,
    class_indices,
    validation_labels,
    wnids,
)
from regroup_store.sources.left_out import HIDDEN, NO_IMAGE, LeftOut, is_hidden
from regroup_store.sources.limits import DEFAULT_LARGEST
from regroup_store.sources.places import require_folder, some_names
from regroup_store.sources.source import SourceRow, absolute, error_message, file_system, stamp
from regroup_store.sources.tar_members import Archives, TarMember, members

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import BinaryIO

SPLITS = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
# Below the root that was named: nothing, Kaggle's folders, or the rest of them.
DATA_FOLDERS = ("", "/ILSVRC/Data/CLS-LOC", "/Data/CLS-LOC")


class ImageNetSource:
    """One split of ILSVRC 2012, sorted by class and file name whatever its layout.

    A label is the class index of the wnid among all 1000, so that a subset of classes keeps its
    indices. Sample ids are ``<wnid>/<file name>`` in every layout. A folder `train` or `val` takes
    precedence over the archive of that split. Locators are paths below that folder, or
    ``<archive>#<first byte>+<bytes>``.
    """

    def __init__(self, location: str, largest: int = DEFAULT_LARGEST) -> None:
        """Find the split's folder or archive; the images are only listed by `rows`.

        Args:
            location: ``train:ROOT`` or ``val:ROOT``.
            largest: bytes that one image may have.

        Raises:
            StoreUsageError: no split is named, or ROOT holds neither its folder nor its archive.
        """
        self._split, _, root = location.partition(":")
        if self._split not in SPLITS or not root:
            raise StoreUsageError(
                f"imagenet:{location} names no split: write imagenet:train:PATH or "
                "imagenet:val:PATH"
            )
        self._largest = largest
        self.left_out = LeftOut()
        self._fs, root = file_system(root, f"imagenet:{location}")
        self._root = root.rstrip("/")
        self.spec = f"imagenet:{self._split}:{absolute(self._fs, self._root)}"
        self._archive = SPLITS[self._split]
        self._path, self._in_folder = self._find()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The 1000 wnids, even where only some of these classes exist."""
        return wnids()

    def rows(self) -> Iterator[SourceRow]:
        """The images that exist, by class and then by file name.

        Raises:
            StoreUsageError: no images, classes that are not ImageNet's, archives that are damaged
                or half unpacked, validation images without labels or that do not fit them.
        """
        self.left_out.clear()
        if not self._in_folder:
            return self._archived_classes() if self._split == "train" else self._archived_images()
        entries = self._shown(list_folder(self._fs, self._path))
        folders = [name for name, entry in entries if is_folder(self._fs, entry)]
        loose = sorted((name, entry) for name, entry in entries if name not in set(folders))
        if self._split == "val" and not folders:
            return self._loose_images(loose)
        self._check_unpacked(folders, [name for name, _ in loose])
        return self._class_folders()

    def read(self, locators: Sequence[str]) -> list[bytes | OSError]:
        """Bytes of the images.

        Raises:
            StoreUsageError: a locator cannot be one of this split.
        """
        if self._in_folder:
            return read_files(self._fs, self._path, locators, self.spec, self._largest)
        paths = {self._archive: self._path}
        return Archives(self._fs, self.spec, paths, self._largest).read(locators)

    def _shown(self, entries: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
        """The entries that are not hidden; those that are count as left out."""
        for name in sorted(name for name, _ in entries if is_hidden(name)):
            self.left_out.add(HIDDEN, name)
        return [(name, entry) for name, entry in entries if not is_hidden(name)]

    def _is_image(self, name: str) -> bool:
        """Whether a file is an image; one that is not counts as left out."""
        if is_hidden(name) or not is_image(name):
            self.left_out.add(HIDDEN if is_hidden(name) else NO_IMAGE, name)
            return False
        return True

    def _find(self) -> tuple[str, bool]:
        """Where the images are, and whether that is a folder."""
        for place in (f"{self._root}{folder}" for folder in DATA_FOLDERS):
            if self._fs.isdir(f"{place}/{self._split}"):
                return f"{place}/{self._split}", True
            if self._fs.isfile(f"{place}/{self._archive}"):
                return f"{place}/{self._archive}", False
        require_folder(self._fs, self._root, self.spec, f"the folder above {self._split!r}")
        found = sorted(name for name, _ in list_folder(self._fs, self._root))
        raise StoreUsageError(
            f"{self.spec}: expected the folder {self._split!r} or {self._archive} there, or below "
            f"ILSVRC/Data/CLS-LOC; found {some_names(found)}"
        )

    def _check_unpacked(self, folders: list[str], loose: list[str]) -> None:
        """Refuse what an interrupted unpacking leaves, and folders that are not classes."""
        where = f"{self.spec}: {self._path}"
        if packed := [name for name in loose if name.endswith(".tar")]:
            raise StoreUsageError(
                f"{where} is half unpacked: {len(folders)} class folders beside {len(packed)} "
                f"archives that are not ({some_names(packed)}); unpack each into a folder of its "
                "name"
            )
        if images := [name for name in loose if is_image(name)]:
            raise StoreUsageError(
                f"{where} holds {len(images)} images ({some_names(images)}) beside {len(folders)} "
                "class folders; expected all of them in class folders"
            )
        if not folders:
            raise StoreUsageError(f"{where} holds no class folder; found {some_names(loose)}")
        check_wnids(sorted(folders), where, "class folder")

    def _class_folders(self) -> Iterator[SourceRow]:
        folder = ImageFolderSource(absolute(self._fs, self._path), self.spec, self._largest)
        folder.left_out = self.left_out
        first: dict[str, str] = {}
        for row in folder.rows():
            if self._split == "val":
                self._check_once(row.locator, first)
            label = class_indices()[folder.class_names[row.label]]
            yield SourceRow(row.sample_id, label, row.locator, row.stamp)

    def _check_once(self, path: str, first: dict[str, str]) -> None:
        """Refuse a validation image that is in two class folders."""
        other = first.setdefault(file_name(path), path)
        if other != path:
            raise StoreUsageError(
                f"{self.spec}: {other} and {path} are the same image in two classes; remove one"
            )

    def _loose_images(self, entries: list[tuple[str, dict[str, Any]]]) -> Iterator[SourceRow]:
        """Rows of a `val` without class folders."""
        return self._labelled(
            (require_utf8(name, self.spec), name, stamp(self._fs, entry))
            for name, entry in entries
            if self._is_image(name)
        )

    def _archived_images(self) -> Iterator[SourceRow]:
        """Rows of the validation archive."""
        with self._open() as (file, size, version):
            found = [
                (file_name(member.name), member.locator(self._archive), version)
                for member in members(file, self._archive, 0, size, self.left_out)
                if self._is_image(member.name)
            ]
        return self._labelled(found)

    def _labelled(self, images: Iterable[tuple[str, str, str]]) -> Iterator[SourceRow]:
        """Rows of validation images (name, locator, stamp); their classes come from a file."""
        found = {locator: (name, version) for name, locator, version in images}
        if not found:
            raise StoreUsageError(f"{self.spec}: {self._path} holds no image")
        folders = list(dict.fromkeys([self._root, self._path.rpartition("/")[0]]))
        file, labels = validation_labels(self._fs, folders, self.spec)
        check_labelled((_stem(name) for name, _ in found.values()), labels, self.spec, file)
        rows = (
            (labels[_stem(name)], name, locator, version)
            for locator, (name, version) in found.items()
        )
        return (
            SourceRow(f"{wnids()[label]}/{name}", label, locator, version)
            for label, name, locator, version in sorted(rows)
        )

    def _archived_classes(self) -> Iterator[SourceRow]:
        """Rows of the training archive, an archive of one archive per class."""
        with self._open() as (file, size, version):
            classes = self._class_archives(file, size)
            for wnid in sorted(classes, key=class_indices().__getitem__):
                for name, image in self._class_images(file, wnid, classes[wnid]):
                    locator = image.locator(self._archive)
                    yield SourceRow(f"{wnid}/{name}", class_indices()[wnid], locator, version)

    def _class_archives(self, file: BinaryIO, size: int) -> dict[str, TarMember]:
        """Where in the training archive the archive of each wnid is."""
        found: dict[str, TarMember] = {}
        for member in members(file, f"{self.spec}: {self._archive}", 0, size, self.left_out):
            if is_hidden(member.name):
                self.left_out.add(HIDDEN, member.name)
                continue
            name = file_name(member.name)
            wnid = name.removesuffix(".tar")
            if wnid == name:
                raise StoreUsageError(
                    f"{self.spec}: {self._archive} holds {member.name!r}; expected an archive of "
                    f"class archives such as {wnids()[0]}.tar"
                )
            if wnid in found:
                raise StoreUsageError(f"{self.spec}: {self._archive} holds {name} twice")
            found[wnid] = member
        if not found:
            raise StoreUsageError(f"{self.spec}: {self._archive} holds no class archive")
        check_wnids(found, f"{self.spec}: {self._archive}", "class archive")
        return found

    def _class_images(
        self, file: BinaryIO, wnid: str, archive: TarMember
    ) -> list[tuple[str, TarMember]]:
        """File name and place of the images of one class, sorted by name."""
        where = f"{self.spec}: {wnid}.tar in {self._archive}"
        found: dict[str, TarMember] = {}
        for member in members(file, where, archive.offset, archive.end, self.left_out):
            if self._is_image(name := file_name(member.name)):
                if name in found:
                    raise StoreUsageError(f"{where} holds {name!r} twice")
                found[name] = member
        if not found:
            raise StoreUsageError(f"{where} holds no image")
        return sorted(found.items())

    @contextmanager
    def _open(self) -> Iterator[tuple[BinaryIO, int, str]]:
        """The archive as a file, its size in bytes, and its stamp."""
        try:
            entry = self._fs.info(self._path)
            file = self._fs.open(self._path, "rb")
        except OSError as error:
            raise StoreUsageError(
                f"{self.spec}: {self._archive} cannot be read: {error_message(error)}"
            ) from error
        with file:
            yield file, int(entry["size"]), stamp(self._fs, entry)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
