"""Checkpoints: partial results of a long attempt, kept until the block is committed.

They only save work: readers of the element ignore them, and a checkpoint that is damaged, or of
other rows, is removed as if it had never been written (docs/format.md, "Checkpoints").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from regroup_store.format.fingerprint import checksum_bytes
from regroup_store.format.parquet_parts import encode_table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from regroup_store.backends.base import Backend
    from regroup_store.format.manifests import Location

CHECKPOINTS = "checkpoints"
_FILE = re.compile(r"\d{5,}-([0-9a-f]{16})\.parquet")


@dataclass(frozen=True)
class BlockCheckpoints:
    """The checkpoints of one block: Parquet files named after their first row and checksum."""

    backend: Backend
    location: Location
    block: int

    def add(self, first_row: int, table: pa.Table) -> None:
        """Store `table`, durably. Concurrent attempts never overwrite each other's checkpoints.

        Args:
            first_row: a row of the block in `table`, which helps people tell files apart.
            table: the rows to keep.
        """
        data = encode_table(table)
        name = f"{first_row:05d}-{checksum_bytes(data)}.parquet"
        self.backend.replace(f"{self._folder}/{name}", data)

    def read(self, fits: Callable[[pa.Table], bool]) -> list[pa.Table]:
        """Read the intact tables that `fits` accepts, and remove all other files."""
        found = []
        for name in self.backend.children(self._folder):
            table = self._read(name)
            if table is not None and fits(table):
                found.append(table)
            else:
                self.backend.delete(f"{self._folder}/{name}")
        return found

    def clear(self) -> None:
        """Remove all of them: the block is committed."""
        for key in self.backend.keys(self._folder):
            self.backend.delete(key)

    @property
    def _folder(self) -> str:
        return self.location.key(CHECKPOINTS, f"{self.block:05d}")

    def _read(self, name: str) -> pa.Table | None:
        """Read a table whose bytes match the checksum in its name; None otherwise."""
        match = _FILE.fullmatch(name)
        try:
            data = self.backend.read(f"{self._folder}/{name}") if match else b""
        except FileNotFoundError:  # Another attempt at the block has just committed it.
            return None
        if not match or checksum_bytes(data) != match[1]:
            return None
        return pq.read_table(pa.BufferReader(data))


def checkpointed_blocks(backend: Backend, location: Location) -> list[int]:
    """List the blocks that have a checkpoint, in order."""
    prefix = location.key(CHECKPOINTS)
    names = (key.removeprefix(f"{prefix}/").partition("/")[0] for key in backend.keys(prefix))
    return sorted({int(name) for name in names if name.isdigit()})


def clear_checkpoints(backend: Backend, location: Location, blocks: Collection[int]) -> None:
    """Remove the checkpoints of `blocks`."""
    for block in blocks:
        BlockCheckpoints(backend, location, block).clear()
