"""The interface of a backend: named byte strings below one root.

A backend also makes every other client of its bytes that the store uses (zarr's), so that all of
them share one location, one set of credentials and one kind of errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from regroup_store.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from zarr.storage import StorePath

PARTIAL_SUFFIX = ".partial"


class Backend(Protocol):
    """Named byte strings below one root. Keys are relative, '/'-separated paths.

    Attributes:
        locks: whether `lock` excludes a second writer.
    """

    locks: ClassVar[bool]

    @property
    def uri(self) -> str:
        """The location of the root; `backend_for(uri)` opens it in any process."""

    def read(self, key: str) -> bytes:
        """Read the bytes under `key`.

        Raises:
            FileNotFoundError: there is no such key.
        """

    def create(self, key: str, data: bytes) -> bool:
        """Write `data` under `key` atomically and durably unless `key` exists.

        Returns:
            Whether this call created the key. An existing one is left unmodified; of several
            concurrent calls exactly one returns True.
        """

    def replace(self, key: str, data: bytes) -> None:
        """Write `data` under `key` atomically and durably, replacing what was there."""

    def write(self, key: str, data: bytes) -> None:
        """Write `data` under `key` atomically, replacing what was there; durable after `sync`."""

    def exists(self, key: str) -> bool:
        """Check whether `key` holds bytes."""

    def keys(self, prefix: str = "") -> list[str]:
        """List the keys below the folder `prefix`, at any depth, sorted."""

    def children(self, prefix: str = "") -> list[str]:
        """List the names (folders and files) directly in the folder `prefix`, sorted."""

    def partials(self, prefix: str) -> list[str]:
        """List the keys of unfinished writes below `prefix`, sorted; `keys` leaves them out."""

    def links(self) -> list[str]:
        """List the keys that are symbolic links, sorted; none is ever followed."""

    def size(self, prefix: str) -> int:
        """Sum the bytes stored below the folder `prefix`."""

    def delete(self, key: str) -> None:
        """Remove `key`; a key that does not exist is ignored."""

    def prune(self, prefix: str) -> None:
        """Remove the folder `prefix` and the folders in it, as far as they are empty."""

    def lock(self, key: str, slot: int) -> AbstractContextManager[None]:
        """Hold lock number `slot` of the file `key`; without effect where `locks` is False.

        The operating system releases the lock when its holder dies, by whatever signal.
        """

    def sync(self, keys: list[str]) -> None:
        """Make the bytes under `keys` durable, written by `write` or by other clients."""

    def prefetch(self, keys: Iterable[str]) -> None:
        """Announce that `keys` are read soon. A hint: it never fails, whatever exists."""

    def reads(self, what: str) -> AbstractContextManager[None]:
        """Context that turns other clients' failures to read `what` into errors of the store."""

    def writes(self, what: str) -> AbstractContextManager[None]:
        """Context that turns other clients' failures to write `what` into errors of the store."""

    def zarr_store(self, prefix: str) -> StorePath:
        """Open zarr's client for the folder `prefix`."""


def validate_key(key: str) -> str:
    """Check that `key` stays below the root, and return it.

    Keys may come from files (a manifest's array paths), and no path from a file is trusted.

    Raises:
        DamagedError: the key is absolute, leaves the root, or has an empty part.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in key or "\\" in key:
        raise DamagedError(f"{key!r} is not a key of a store: it does not stay below its root")
    return key


def validate_prefix(prefix: str) -> str:
    """Check that `prefix` is a key or empty (the root), and return it."""
    return prefix and validate_key(prefix)
