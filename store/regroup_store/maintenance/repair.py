"""Repair: remove exactly what makes the command that wrote a damaged part write it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from regroup_store.format.arrays import create_array
from regroup_store.format.commits import commit_key
from regroup_store.format.element import BlockElement
from regroup_store.format.lineage import derived
from regroup_store.format.manifests import BLOCK_KINDS, KINDS, Location
from regroup_store.format.store import MARKER, Store, marker_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from regroup_store.maintenance.findings import Finding

Action = Literal["rewrite", "requeue", "rebuild", "summarise", "forget", "rerun", "discard"]


@dataclass(frozen=True)
class Repair:
    """The repair of one element or, with `location` None, of the store's marker.

    Attributes:
        location: the element; or, of the kind "studies" or "runs", a study or a run.
        action: "rewrite": at once, from what is known. "requeue": the next run of the command
            computes `blocks`. "rebuild": the next run writes the manifest and, of a bank or an
            index, the rest. "summarise": the next run writes the summary from the blocks.
            "forget": the record of why a block failed is removed; nothing depends on it.
            "rerun": the study's next run replaces its results; they stay until then, since they
            name elements that `gc` must keep. "discard": a timing or the record of a run is
            removed; the study's next run measures again.
        blocks: computed again by the next run.
        removed: keys that are deleted, in this order.
        rewritten: keys that are written again at once.
    """

    location: Location | None
    action: Action
    blocks: tuple[int, ...] = ()
    removed: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()


def plan_repairs(store: Store, findings: Iterable[Finding]) -> list[Repair]:
    """Plan the repair of all findings of level "damaged", one per element, in their order."""
    by_place: dict[Location | None, list[Finding]] = {}
    for finding in findings:
        if finding.level == "damaged":
            location = Location(finding.kind, finding.ref) if finding.ref else None
            by_place.setdefault(location, []).append(finding)
    return [_plan(store, location, found) for location, found in by_place.items()]


def apply_repair(store: Store, repair: Repair) -> None:
    """Carry out a repair; repeating it has no further effect.

    Raises:
        StoreError: the store cannot be written.
    """
    for key in repair.removed:
        store.backend.delete(key)
    if repair.location is None:
        store.backend.replace(MARKER, marker_bytes())
    elif repair.rewritten:
        _rewrite_metadata(store, repair.location, repair.rewritten)


def kept_elements(store: Store, repair: Repair) -> list[Location]:
    """List the elements that were derived from values to be computed again, and stay unmodified.

    Their own checksums hold or are findings of their own, and the values come back the same.
    """
    if repair.location is None or repair.action not in ("requeue", "rebuild"):
        return []
    return derived(store, repair.location)


def _plan(store: Store, location: Location | None, found: list[Finding]) -> Repair:
    if location is None:
        return Repair(None, "rewrite", rewritten=(MARKER,))
    if location.kind not in KINDS:
        return _plan_other(location, found)
    if location.kind not in BLOCK_KINDS or any(f.what == "manifest" for f in found):
        return Repair(location, "rebuild", removed=_remains(store, location))
    blocks = sorted({f.block for f in found if f.block is not None})
    metadata = tuple(f.path for f in found if f.what == "metadata")
    reasons = [f.path for f in found if f.what == "quarantine"]
    summary = [location.key("summary.json")] if len(metadata) + len(reasons) < len(found) else []
    removed = (*summary, *(commit_key(location, block) for block in blocks), *reasons)
    return Repair(location, _action(blocks, summary, metadata), tuple(blocks), removed, metadata)


def _plan_other(location: Location, found: list[Finding]) -> Repair:
    """Plan the repair of a study or of the record of a run."""
    removed = tuple(f.path for f in found if f.what in ("timing", "run"))
    return Repair(location, "discard" if len(removed) == len(found) else "rerun", removed=removed)


def _action(blocks: Sequence[int], summary: Sequence[str], metadata: Sequence[str]) -> Action:
    """The most far-reaching of the actions that a block element needs."""
    if blocks:
        return "requeue"
    if summary:
        return "summarise"
    return "rewrite" if metadata else "forget"


def _remains(store: Store, location: Location) -> tuple[str, ...]:
    """Keys to remove before an element is rebuilt, its manifest first.

    A bank is rewritten in full. Blocks, and the parts of an index, are not touched: committed
    blocks are found again under the new manifest, parts are overwritten.
    """
    manifest = location.key("manifest.json")
    others = store.backend.keys(location.folder) if location.kind == "banks" else []
    return (manifest, *(key for key in others if key != manifest))


def _rewrite_metadata(store: Store, location: Location, keys: Iterable[str]) -> None:
    element = BlockElement.open(store, location.kind, location.ref)
    for key in keys:
        store.backend.delete(key)
    for spec in element.arrays:
        create_array(store.backend, location, spec, element.plan.rows, element.plan.block_rows)
