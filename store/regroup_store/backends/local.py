"""A store in a folder: atomic, durable, create-only writes on a POSIX file system."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from zarr.storage import StorePath

from regroup_store.backends.base import PARTIAL_SUFFIX, validate_key, validate_prefix
from regroup_store.backends.links import LinklessStore, files_below, require_no_link
from regroup_store.errors import LinkError, StoreError, StoreUnavailableError, StoreUsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_FULL = {errno.ENOSPC, errno.EDQUOT}
# A writer holds a slot for the seconds that one block's files take to write.
LOCK_PATIENCE_S = 120.0
SYNCS_AT_ONCE = 16
# Of one file: no chunk, part or record reaches it (the compressor takes 2 GiB).
MOST_BYTES = 2**31 + 2**26


@dataclass(frozen=True)
class LocalBackend:
    """The folder `root`; `Backend` documents the methods."""

    locks: ClassVar[bool] = True

    root: Path

    @property
    def uri(self) -> str:
        """The absolute path of the folder."""
        return str(self.root)

    def prepare(self, *, create: bool) -> None:
        """Check that the root is a folder, and make it where `create` allows.

        Raises:
            StoreUsageError: it is a file, it does not exist, or it cannot be made.
        """
        if self.root.is_dir():
            return
        if self.root.exists():
            raise StoreUsageError(f"{self.root} is a file, not a store: name a folder")
        if not create:
            raise StoreUsageError(f"there is no store at {self.root}: check --store")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUsageError(
                f"cannot make a store at {self.root}: {error.strerror}; choose another --store"
            ) from error

    def require_writable(self) -> None:
        """Check that this user can write the folder.

        Raises:
            StoreUsageError: the folder or its mount is read-only for this user.
        """
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise self._error("anything", PermissionError(errno.EACCES, "permission denied"))

    def read(self, key: str) -> bytes:
        """Read the file `key`."""
        with self.reads(key):
            return _read_plain(self._path(key), key)

    def create(self, key: str, data: bytes) -> bool:
        """Write a temporary file, then link it as `key`: the link fails if `key` exists."""
        path = self._path(key)
        with self.writes(key), self._written_beside(path, data) as partial:
            try:
                os.link(partial, path)
            except FileExistsError:
                return False
            _sync(path.parent)
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Write a temporary file, then rename it to `key`."""
        path = self._path(key)
        with self.writes(key), self._written_beside(path, data) as partial:
            os.replace(partial, path)  # noqa: PTH105  (as its neighbours, a call on the os)
            _sync(path.parent)

    def write(self, key: str, data: bytes) -> None:
        """Write a temporary file, then rename it to `key`, without any fsync."""
        path = self._path(key)
        partial = _partial(path)
        with self.writes(key):
            self._make_folder(path.parent, durable=False)
            try:
                _write_new(partial, data, durable=False)
                partial.replace(path)
            finally:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        """Check whether `key` is a file, and that a missing one is not due to a vanished store."""
        found = self._path(key).is_file()
        if not found:
            self._require_root(key)
        return found

    def keys(self, prefix: str = "") -> list[str]:
        """List the files below `prefix`, links among them."""
        return sorted(path.relative_to(self.root).as_posix() for path in self._files(prefix))

    def children(self, prefix: str = "") -> list[str]:
        """List the names in the folder `prefix`; none where there is no such folder."""
        folder = self._path(prefix) if prefix else self.root
        try:
            names = os.listdir(folder)  # noqa: PTH208  (names are what is wanted)
        except (FileNotFoundError, NotADirectoryError):
            self._require_root(prefix)
            return []
        return sorted(name for name in names if not name.endswith(PARTIAL_SUFFIX))

    def partials(self, prefix: str) -> list[str]:
        """List the temporary files below `prefix`."""
        found = self._files(prefix, partial=True)
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def links(self) -> list[str]:
        """List the links at any depth, to files and to folders."""
        found = (path for path in files_below(self.root) if path.is_symlink())
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def size(self, prefix: str) -> int:
        """Sum the sizes of the files below `prefix`; of a link that of the link."""
        total = 0
        for path in self._files(prefix):
            with contextlib.suppress(FileNotFoundError):
                total += path.lstat().st_size
        return total

    def delete(self, key: str) -> None:
        """Remove the file `key` if it exists; of a link the link, never what it points to."""
        path = self.root / validate_key(key)
        require_no_link(self.root, path.parent)
        with self.writes(key):
            path.unlink(missing_ok=True)

    def prune(self, prefix: str) -> None:
        """Remove the empty folders, the deepest first; one that got a file meanwhile stays."""
        for folder, _, _ in os.walk(self._path(prefix), topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()

    @contextlib.contextmanager
    def lock(self, key: str, slot: int) -> Iterator[None]:
        """Lock byte `slot` of the file `key`, between processes, threads and NFS clients alike."""
        with self.writes(key):
            descriptor = os.open(self._path(key), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._acquire(descriptor, key, slot)
            yield
        finally:
            os.close(descriptor)

    def sync(self, keys: list[str]) -> None:
        """Fsync the files and the folders that hold them, many at once.

        One after the other, each would wait for its own commit of the file system's journal.
        """
        paths = [self._path(key) for key in keys]
        # Chunk folders (c/, c/<block>/, ...) may be new: their own entries count too.
        folders = {parent for path in paths for parent in self._parents(path)}
        with self.writes("a block"), ThreadPoolExecutor(SYNCS_AT_ONCE) as pool:
            for group in (paths, folders):
                list(pool.map(_sync, group))

    def prefetch(self, keys: Iterable[str]) -> None:
        """Have the system read the files ahead, while others are decoded."""
        if hasattr(os, "posix_fadvise"):  # not on macOS
            for key in keys:
                with contextlib.suppress(OSError, LinkError):
                    _read_ahead(self._path(key))

    @contextlib.contextmanager
    def reads(self, what: str) -> Iterator[None]:
        """Turn an OSError into a sentence.

        FileNotFoundError stays itself, unless the store has vanished.
        """
        try:
            yield
        except FileNotFoundError:
            self._require_root(what)
            raise
        except OSError as error:
            raise StoreError(
                f"cannot read {what} of the store {self.root}: {error.strerror}"
            ) from error

    @contextlib.contextmanager
    def writes(self, what: str) -> Iterator[None]:
        """Turn an OSError into a sentence: exit status 2 if read-only, else 1."""
        try:
            yield
        except OSError as error:
            raise self._error(what, error) from error

    def zarr_store(self, prefix: str) -> StorePath:
        """Open zarr's client for the folder `prefix`."""
        return StorePath(LinklessStore(self.root), validate_key(prefix))

    def _path(self, key: str) -> Path:
        """The path of `key`; raises LinkError where a part of it is a link."""
        return require_no_link(self.root, self.root / validate_key(key))

    def _files(self, prefix: str, *, partial: bool = False) -> Iterator[Path]:
        folder = self.root / validate_prefix(prefix)
        if prefix:
            require_no_link(self.root, folder.parent)
        is_link = bool(prefix) and folder.is_symlink()
        found = [folder] if is_link else files_below(folder)
        return (path for path in found if path.name.endswith(PARTIAL_SUFFIX) == partial)

    def _parents(self, path: Path) -> list[Path]:
        return [folder for folder in path.parents if folder.is_relative_to(self.root)]

    def _acquire(self, descriptor: int, key: str, slot: int) -> None:
        # Open-file-description locks: unlike lockf's they also exclude threads of one process.
        request = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, slot, 1, 0)
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"another process has been writing block {slot} of {key} in the store "
                        f"{self.root} for {LOCK_PATIENCE_S:.0f} s: stop it, then run again"
                    ) from None
                time.sleep(0.02)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOLCK):
                    raise self._error(key, error) from error
                return  # A file system without locks: late writers are detected by checksums.

    @contextlib.contextmanager
    def _written_beside(self, path: Path, data: bytes) -> Iterator[Path]:
        self._make_folder(path.parent)
        partial = _partial(path)
        try:
            _write_new(partial, data)
            yield partial
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def _make_folder(self, folder: Path, *, durable: bool = True) -> None:
        """Make `folder` and its missing parents, but never the root itself."""
        if folder == self.root or folder.is_dir():
            return
        self._make_folder(folder.parent, durable=durable)
        folder.mkdir(exist_ok=True)
        if durable:
            _sync(folder.parent)

    def _vanished(self) -> bool:
        """Whether the root is gone, or an empty folder, as the mount point of a lost mount is."""
        try:
            return next(self.root.iterdir(), None) is None
        except OSError:
            return True

    def _vanishing(self, what: str) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"the store {self.root} has vanished (at {what or 'its root'}): bring it back, then "
            "run the same command again"
        )

    def _require_root(self, what: str) -> None:
        """Distinguish a missing key from a missing store; raises StoreUnavailableError."""
        if not self.root.is_dir():
            raise self._vanishing(what)

    def _error(self, what: str, error: OSError) -> StoreError:
        if error.errno in _READ_ONLY:
            return StoreUsageError(
                f"the store {self.root} is read-only for this user (writing {what}: "
                f"{error.strerror}): choose another with --store, or change its permissions"
            )
        if error.errno in _FULL:
            return StoreUnavailableError(
                f"no space left for the store {self.root} (writing {what}): what was committed "
                "stays readable; free space and run the same command again"
            )
        if self._vanished():
            return self._vanishing(what)
        return StoreError(f"cannot write {what} of the store {self.root}: {error.strerror}")


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")


def _write_new(path: Path, data: bytes, *, durable: bool = True) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _read_plain(path: Path, key: str) -> bytes:
    """Read a plain file: a pipe would never end, and neither would what no store writes."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            raise StoreError(
                f"{path} is no file of a store: it is not a plain file of at most {MOST_BYTES} "
                f"bytes; remove {key}, and run `regroup verify`"
            )
        return file.read()


def _read_ahead(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Fsync `path`, a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
