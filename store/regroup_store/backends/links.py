"""Symbolic links in a store in a folder: never followed, since they may lead anywhere.

The root itself may be one, or lie behind one: that is what the user named.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zarr.storage import LocalStore

from regroup_store.errors import LinkError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def first_link(root: Path, path: Path) -> Path | None:
    """Return the first part of `path` below `root` that is a link, or None."""
    place = root
    for part in path.relative_to(root).parts:
        place = place / part
        if place.is_symlink():
            return place
    return None


def require_no_link(root: Path, path: Path) -> Path:
    """Check that no part of `path` below `root` is a link, and return it.

    Raises:
        LinkError: one is.
    """
    if place := first_link(root, path):
        raise LinkError(
            f"{place.relative_to(root).as_posix()} of the store {root} is a link, which is "
            "never followed: put what it points to in its place, or remove it"
        )
    return path


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below `folder`; a link is yielded like a file, whatever it points to."""
    for place, folders, names in os.walk(folder):
        links = (name for name in folders if Path(place, name).is_symlink())
        yield from (Path(place, name) for name in (*names, *links))


class LinklessStore(LocalStore):
    """zarr's client of a folder, which refuses keys behind a link."""

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        """Read `key`."""
        return await self._checked(super().get, key, *args, **options)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[Any]) -> Any:
        """Read ranges of several keys."""
        ranges = [*key_ranges]
        for key, _ in ranges:
            require_no_link(Path(self.root), Path(self.root, key))
        return await super().get_partial_values(prototype, ranges)

    async def set(self, key: str, *args: Any, **options: Any) -> None:
        """Write `key`."""
        await self._checked(super().set, key, *args, **options)

    async def exists(self, key: str) -> bool:
        """Check whether `key` is a file."""
        return bool(await self._checked(super().exists, key))

    async def _checked(self, call: Callable[..., Any], key: str, *args: Any, **options: Any) -> Any:
        path = require_no_link(Path(self.root), Path(self.root, key))
        if path.exists() and not path.is_file():
            raise StoreError(f"{path} is no file of a store: it is not a plain file; remove it")
        return await call(key, *args, **options)
