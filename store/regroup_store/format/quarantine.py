"""Quarantine: why blocks failed, kept beside the element until they are committed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from regroup_store.errors import DamagedError
from regroup_store.format.commits import block_numbers, require_own
from regroup_store.format.fingerprint import seal, unseal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regroup_store.backends.base import Backend
    from regroup_store.format.manifests import Location

QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Quarantined:
    """A block that failed in the last run.

    Attributes:
        block: its number.
        attempts: how often it was tried.
        reason: of the last attempt's failure; may be a traceback.
    """

    block: int
    attempts: int
    reason: str

    @property
    def cause(self) -> str:
        """The last line of the reason."""
        return (self.reason.strip().splitlines() or ["no reason was recorded"])[-1]


def quarantine_key(location: Location, block: int) -> str:
    """Key of a block's quarantine record."""
    return location.key(QUARANTINE, f"{block:05d}.json")


def write_quarantine(
    backend: Backend, location: Location, record: Quarantined, element: str
) -> None:
    """Write a block's record, with its element's fingerprint, replacing that of an earlier run."""
    data = seal({**asdict(record), "element": element})
    backend.replace(quarantine_key(location, record.block), data)


def read_quarantine(backend: Backend, location: Location, block: int) -> Quarantined:
    """Read a block's record.

    Raises:
        FileNotFoundError: it has none.
        DamagedError: the record is not what was written, or is of another element.
    """
    key = quarantine_key(location, block)
    where = f"{key} of the store {backend.uri}"
    record = unseal(backend.read(key), where)
    require_own(record, location, where)
    record.pop("element", None)
    if not _is_record(record) or record["block"] != block:
        raise DamagedError(f"{where} is damaged: it does not say why block {block} failed")
    return Quarantined(**record)  # type: ignore[arg-type]


def _is_record(record: Mapping[str, object]) -> bool:
    kinds = {"block": int, "attempts": int, "reason": str}
    return set(record) == set(kinds) and all(type(record[k]) is kinds[k] for k in kinds)


def quarantined_blocks(backend: Backend, location: Location) -> list[int]:
    """List the blocks that have a record, in order."""
    return sorted(block_numbers(backend.children(location.key(QUARANTINE))))
