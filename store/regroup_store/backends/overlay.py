"""A store as it is, and over it, in memory, what is written: nothing of it changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from zarr.storage import StorePath

    from regroup_store.backends.base import Backend
    from regroup_store.backends.object_store import ObjectBackend


@dataclass(frozen=True)
class OverlayBackend:
    """A store as it is, and over it, in memory, what a dry run would write."""

    below: Backend | None
    above: ObjectBackend
    locks: ClassVar[bool] = False

    @property
    def uri(self) -> str:
        """Where the store is."""
        return self.above.uri

    def _layer(self, key: str) -> Backend:
        below = self.below if self.below and not self.above.exists(key) else None
        return below or self.above

    def read(self, key: str) -> bytes:
        """Return the bytes under `key`; raises FileNotFoundError."""
        return self._layer(key).read(key)

    def create(self, key: str, data: bytes) -> bool:
        """Keep `data` in memory unless `key` exists."""
        return not self.exists(key) and self.above.create(key, data)

    def replace(self, key: str, data: bytes) -> None:
        """Keep `data` in memory."""
        self.above.replace(key, data)

    def write(self, key: str, data: bytes) -> None:
        """Keep `data` in memory."""
        self.above.replace(key, data)

    def prefetch(self, keys: Iterable[str]) -> None:
        """Nothing is read ahead."""

    def exists(self, key: str) -> bool:
        """Say whether `key` holds bytes, in memory or in the store."""
        return self._layer(key).exists(key)

    def keys(self, prefix: str = "") -> list[str]:
        """Return the sorted keys below `prefix`."""
        below = self.below.keys(prefix) if self.below else []
        return sorted({*self.above.keys(prefix), *below})

    def children(self, prefix: str = "") -> list[str]:
        """Return the sorted names directly in `prefix`."""
        below = self.below.children(prefix) if self.below else []
        return sorted({*self.above.children(prefix), *below})

    def partials(self, prefix: str) -> list[str]:
        """Return the keys of unfinished writes in the store."""
        return self.below.partials(prefix) if self.below else []

    def size(self, prefix: str) -> int:
        """Return the bytes that the store holds below `prefix`."""
        return self.below.size(prefix) if self.below else 0

    def delete(self, key: str) -> None:
        """Forget `key` if it is in memory; the store keeps what it has."""
        self.above.delete(key)

    def prune(self, prefix: str) -> None:
        """Nothing: the store keeps what it has."""

    def lock(self, key: str, slot: int) -> AbstractContextManager[None]:
        """Nothing is written, so nothing is locked."""
        return self.above.lock(key, slot)

    def sync(self, keys: list[str]) -> None:
        """Nothing to do."""

    def reads(self, what: str) -> AbstractContextManager[None]:
        """Turn failures of other clients' reads into errors of the store."""
        return (self.below or self.above).reads(what)

    def writes(self, what: str) -> AbstractContextManager[None]:
        """Turn failures of other clients' writes into errors of the store."""
        return self.above.writes(what)

    def zarr_store(self, prefix: str) -> StorePath:
        """Return the zarr client of the layer that has the array `prefix`."""
        return self._layer(f"{prefix}/zarr.json").zarr_store(prefix)
