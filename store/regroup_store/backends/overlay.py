"""A store below, and over it, in memory, all that is written: the store itself never changes."""

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
    """A dry run's backend: reads fall through to `below`, writes stay in `above`.

    Attributes:
        below: the store, or None where there is none yet.
        above: what was written, in memory.
    """

    below: Backend | None
    above: ObjectBackend
    locks: ClassVar[bool] = False

    @property
    def uri(self) -> str:
        """The URI of the store."""
        return self.above.uri

    def _layer(self, key: str) -> Backend:
        below = self.below if self.below and not self.above.exists(key) else None
        return below or self.above

    def read(self, key: str) -> bytes:
        """Read from memory, else from the store."""
        return self._layer(key).read(key)

    def create(self, key: str, data: bytes) -> bool:
        """Keep `data` in memory unless `key` exists in either layer."""
        return not self.exists(key) and self.above.create(key, data)

    def replace(self, key: str, data: bytes) -> None:
        """Keep `data` in memory."""
        self.above.replace(key, data)

    def write(self, key: str, data: bytes) -> None:
        """Keep `data` in memory."""
        self.above.replace(key, data)

    def prefetch(self, keys: Iterable[str]) -> None:
        """No effect: a dry run reads little."""

    def exists(self, key: str) -> bool:
        """Check whether `key` holds bytes in either layer."""
        return self._layer(key).exists(key)

    def keys(self, prefix: str = "") -> list[str]:
        """List the keys of both layers below `prefix`."""
        below = self.below.keys(prefix) if self.below else []
        return sorted({*self.above.keys(prefix), *below})

    def children(self, prefix: str = "") -> list[str]:
        """List the names in `prefix` of both layers."""
        below = self.below.children(prefix) if self.below else []
        return sorted({*self.above.children(prefix), *below})

    def partials(self, prefix: str) -> list[str]:
        """List the unfinished writes in the store."""
        return self.below.partials(prefix) if self.below else []

    def links(self) -> list[str]:
        """List the links in the store."""
        return self.below.links() if self.below else []

    def size(self, prefix: str) -> int:
        """Sum the bytes that the store holds below `prefix`."""
        return self.below.size(prefix) if self.below else 0

    def delete(self, key: str) -> None:
        """Remove `key` from memory; the store stays unmodified."""
        self.above.delete(key)

    def prune(self, prefix: str) -> None:
        """No effect: the store stays unmodified."""

    def lock(self, key: str, slot: int) -> AbstractContextManager[None]:
        """No effect: only this process writes."""
        return self.above.lock(key, slot)

    def sync(self, keys: list[str]) -> None:
        """No effect: nothing is durable."""

    def reads(self, what: str) -> AbstractContextManager[None]:
        """Convert errors as the store does."""
        return (self.below or self.above).reads(what)

    def writes(self, what: str) -> AbstractContextManager[None]:
        """Convert errors as the memory does."""
        return self.above.writes(what)

    def zarr_store(self, prefix: str) -> StorePath:
        """Open zarr's client of the layer that has the array `prefix`."""
        return self._layer(f"{prefix}/zarr.json").zarr_store(prefix)
