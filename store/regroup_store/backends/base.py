"""Where a store's bytes live: the backend interface, and the one place that reads a URI.

`backend_for` turns a URI into a backend, and a backend into every client that the store uses (its
own reads and create-only writes, and zarr's). Clients of S3 are made in `backends.s3`.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import ClassVar, Protocol

from zarr.storage import StorePath

from regroup_store.errors import DamagedError

PARTIAL_SUFFIX = ".partial"


class Backend(Protocol):
    """Named byte strings below one root. Keys are relative, '/'-separated paths.

    Attributes:
        locks: whether `lock` keeps a second writer out.
    """

    locks: ClassVar[bool]

    @property
    def uri(self) -> str:
        """Where the root is; `backend_for(uri)` reaches it from any process."""

    def read(self, key: str) -> bytes:
        """Return the bytes under `key`; raises FileNotFoundError."""

    def create(self, key: str, data: bytes) -> bool:
        """Write `data` under `key` atomically and durably unless `key` exists.

        True: this call created it. False: it exists already and was left alone. Of several
        concurrent calls exactly one returns True.
        """

    def replace(self, key: str, data: bytes) -> None:
        """Write `data` under `key` atomically and durably, whatever was there."""

    def write(self, key: str, data: bytes) -> None:
        """Write `data` under `key` atomically, whatever was there; durable after `sync`."""

    def exists(self, key: str) -> bool:
        """Say whether `key` holds bytes."""

    def keys(self, prefix: str = "") -> list[str]:
        """Return the sorted keys below the folder `prefix`, at any depth."""

    def children(self, prefix: str = "") -> list[str]:
        """Return the sorted names (folders and files) directly in the folder `prefix`."""

    def partials(self, prefix: str) -> list[str]:
        """Return the sorted keys of unfinished writes below `prefix`, which `keys` leaves out."""

    def size(self, prefix: str) -> int:
        """Return the number of bytes stored below the folder `prefix`."""

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens when it is not there."""

    def prune(self, prefix: str) -> None:
        """Remove the folder `prefix` and those in it as far as they are empty."""

    def lock(self, key: str, slot: int) -> AbstractContextManager[None]:
        """Hold number `slot` of the lock file `key` where the backend has locks, else nothing.

        The operating system frees it when the holder dies, by whatever signal.
        """

    def sync(self, keys: list[str]) -> None:
        """Return when the bytes under `keys`, written by `write` or other clients, are durable."""

    def prefetch(self, keys: Iterable[str]) -> None:
        """Say that `keys` are read soon, where that helps. Never fails, whatever is there."""

    def reads(self, what: str) -> AbstractContextManager[None]:
        """Turn failures of other clients' reads of `what` into errors of the store."""

    def writes(self, what: str) -> AbstractContextManager[None]:
        """Turn failures of other clients' writes of `what` into errors of the store."""

    def zarr_store(self, prefix: str) -> StorePath:
        """Return the zarr client for the folder `prefix`."""


def validate_key(key: str) -> str:
    """Return `key` if it stays below the root; raises DamagedError otherwise.

    Keys may come from files (a manifest's array paths), and no path from a file is trusted.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in key or "\\" in key:
        raise DamagedError(f"{key!r} is not a key of a store: it does not stay below its root")
    return key


def validate_prefix(prefix: str) -> str:
    """Return `prefix` if it is empty (the root) or a key."""
    return prefix and validate_key(prefix)
