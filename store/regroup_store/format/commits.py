"""Commit records: a block is real only when its record exists.

A record is written last and create-only, so of two attempts at one block exactly one commits.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from regroup_store.errors import DamagedError, GapError
from regroup_store.format.fingerprint import (
    checksum_array,
    checksum_bytes,
    seal,
    short_fingerprint,
    unseal,
)
from regroup_store.format.parquet_parts import failed_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from regroup_store.backends.base import Backend
    from regroup_store.format.block_plan import BlockPlan
    from regroup_store.format.manifests import Location

_FILE = re.compile(r"(\d{5,})\.json")
_TYPES = {
    "block": int,
    "rows": int,
    "failed": int,
    "arrays": dict,
    "table": str,
    "report": dict,
    "element": str,
}


@dataclass(frozen=True)
class Commit:
    """The record of a committed block.

    Attributes:
        block: its number.
        rows: of the block.
        failed: rows with status "failed".
        arrays: xxh3_64 of the block's values, by the path of the array.
        table: xxh3_64 of the Parquet part's bytes.
        report: the attempt's own account (seconds, ...); nothing depends on it.
        element: fingerprint of the element, or None in a record of before there was one.
    """

    block: int
    rows: int
    failed: int
    arrays: Mapping[str, str]
    table: str
    report: Mapping[str, object]
    element: str | None = None

    def same_content(self, other: Commit) -> bool:
        """Whether two attempts stored the same bytes."""
        return dict(self.arrays) == dict(other.arrays) and self.table == other.table


def build_commit(
    block: int,
    values: Mapping[str, NDArray[np.generic]],
    table: pa.Table,
    part: bytes,
    report: Mapping[str, object],
    element: str,
) -> Commit:
    """Build the record of what an attempt stored: arrays by path, a table and its file."""
    return Commit(
        block=block,
        rows=table.num_rows,
        failed=int(failed_rows(table).sum()),
        arrays={path: checksum_array(array) for path, array in values.items()},
        table=checksum_bytes(part),
        report=dict(report),
        element=element,
    )


def commit_key(location: Location, block: int) -> str:
    """Key of a block's commit record."""
    return location.key("commits", f"{block:05d}.json")


def block_numbers(names: Iterable[str]) -> set[int]:
    """Blocks that record files are named after; other names are ignored."""
    return {int(match[1]) for match in map(_FILE.fullmatch, names) if match}


def committed_blocks(backend: Backend, location: Location, plan: BlockPlan) -> set[int]:
    """The planned blocks that have a commit record."""
    found = block_numbers(backend.children(location.key("commits")))
    return {block for block in found if block < plan.blocks}


def write_commit(backend: Backend, location: Location, commit: Commit) -> bool:
    """Create the record; False where another attempt's record exists."""
    record = {**asdict(commit), "arrays": dict(commit.arrays), "report": dict(commit.report)}
    return backend.create(commit_key(location, commit.block), seal(record))


def read_commit(backend: Backend, location: Location, block: int) -> Commit:
    """Read the record of `block`.

    Raises:
        GapError: the block is not committed.
        DamagedError: the record is not what was written.
    """
    key = commit_key(location, block)
    try:
        data = backend.read(key)
    except FileNotFoundError:
        raise GapError(
            f"block {block} of {location.folder} in the store {backend.uri} is not committed: "
            "run the command that writes it again"
        ) from None
    where = f"{key} of the store {backend.uri}"
    record = unseal(data, where)
    require_own(record, location, where)
    if set(record) | {"element"} != set(_TYPES) or not all(
        type(record[name]) is kind for name, kind in _TYPES.items() if name in record
    ):
        raise DamagedError(f"{where} is damaged: it is not the record of a block")
    if record["block"] != block:
        raise DamagedError(f"{where} is the record of another block")
    return Commit(**record)  # type: ignore[arg-type]


def require_own(record: Mapping[str, object], location: Location, where: str) -> None:
    """Refuse a record that states the fingerprint of another element.

    Records of before they stated one are taken as they are.

    Raises:
        DamagedError: it is another element's; the message begins with `where`.
    """
    stated = record.get("element")
    if stated is not None and short_fingerprint(str(stated)) != location.short_fingerprint:
        raise DamagedError(
            f"{where} is the record of another element, {short_fingerprint(str(stated))}: it was "
            "copied or moved here"
        )
