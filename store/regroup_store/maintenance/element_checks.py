"""Verification of one element: its manifest, metadata, blocks, parts, summary and leftovers.

Reads one block of one array at a time, and continues after every finding.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from regroup_store.errors import DamagedError, FingerprintMismatchError, LinkError, StoreError
from regroup_store.format.arrays import (
    ArraySpec,
    chunk_key,
    open_array,
    read_checked,
    specs_from_json,
)
from regroup_store.format.block_plan import BlockPlan, format_blocks
from regroup_store.format.checkpoints import CHECKPOINTS, checkpointed_blocks
from regroup_store.format.commits import commit_key
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import short_fingerprint, unseal
from regroup_store.format.lineage import parents
from regroup_store.format.manifests import (
    BLOCK_KINDS,
    ROW_KINDS,
    Location,
    find_location,
    has_lost,
    lost_manifest,
    read_manifest,
)
from regroup_store.format.parquet_parts import part_name, read_part
from regroup_store.format.quarantine import quarantine_key, quarantined_blocks, read_quarantine
from regroup_store.kinds.banks import SIGNS
from regroup_store.maintenance.findings import (
    Finding,
    Level,
    level_of_error,
    reading_error,
    zarr_reading_error,
)
from regroup_store.maintenance.metadata_checks import check_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from regroup_store.backends.base import Backend
    from regroup_store.format.store import Store


def check_element(store: Store, location: Location) -> Iterator[Finding]:
    """Check everything below the folder of one element."""
    yield from _check_partials(store.backend, location)
    try:
        manifest = read_manifest(store.backend, location)
    except FileNotFoundError:
        yield from _check_unfinished(store.backend, location)
        return
    except StoreError as error:
        level = _manifest_level(store.backend, location, error)
        yield Finding.at(level, "manifest", location, "manifest.json", str(error))
        return
    try:
        yield from _CHECKS[location.kind](store.backend, location, manifest)
    except LinkError as error:  # of a folder, so that nothing in it can be listed
        yield Finding.at("unreadable", "link", location, "manifest.json", str(error))
    yield from _check_parents(store.backend, location, manifest)


def _manifest_level(backend: Backend, location: Location, error: StoreError) -> Level:
    """Level of a manifest that cannot be trusted.

    One that contradicts its fingerprint though its seal holds was moved here intact.
    """
    if isinstance(error, FingerprintMismatchError):
        try:
            unseal(backend.read(location.key("manifest.json")), location.folder)
        except DamagedError:
            return "damaged"
    return level_of_error(error)


def _check_partials(backend: Backend, location: Location) -> Iterator[Finding]:
    for key in backend.partials(location.folder):
        name = key.removeprefix(f"{location.folder}/")
        problem = "a write in progress, or left by a process that was killed: never read"
        yield Finding.at("note", "leftover", location, name, problem)


def _check_unfinished(backend: Backend, location: Location) -> Iterator[Finding]:
    """Without a manifest: the first file of a block element, and the last of the others."""
    if has_lost(backend, location):
        problem = lost_manifest(location)
        yield Finding.at("damaged", "manifest", location, "manifest.json", problem)
    else:
        problem = (
            "begun but not finished: never read; the command that writes it resumes when run again"
        )
        yield Finding.at("note", "leftover", location, "manifest.json", problem)


def _check_parents(
    backend: Backend, location: Location, manifest: Mapping[str, Any]
) -> Iterator[Finding]:
    for kind, fingerprint in parents(location.kind, manifest["inputs"]):
        try:
            absent = find_location(backend, kind, fingerprint) is None
        except (StoreError, FileNotFoundError):
            continue  # It exists; what is wrong with it is reported as its own finding.
        if absent:
            problem = f"it comes from {kind} {short_fingerprint(fingerprint)}, not in this store"
            yield Finding.at("note", "parent", location, "manifest.json", problem)


def _check_rows(
    backend: Backend, location: Location, manifest: Mapping[str, Any]
) -> Iterator[Finding]:
    for number, checksum in enumerate(manifest["parts"]):
        name = part_name(number)
        if error := reading_error(read_part, backend, location.key(name), checksum):
            yield Finding.from_error(error, "part", location, name)


def _check_bank(
    backend: Backend, location: Location, manifest: Mapping[str, Any]
) -> Iterator[Finding]:
    specs = specs_from_json(manifest["arrays"], f"{location.folder}/manifest.json")
    findings, sound = check_metadata(backend, location, specs, BlockPlan(SIGNS, 1))
    yield from findings
    for spec, checksum in zip(specs, manifest["checksums"], strict=True):
        if spec in sound:
            keys = [chunk_key(location, spec, sign) for sign in range(SIGNS)]
            read = partial(_read_mixtures, backend, location, spec, checksum)
            if error := zarr_reading_error(backend, keys, read):
                yield Finding.from_error(error, "chunk", location, spec.path)


def _read_mixtures(backend: Backend, location: Location, spec: ArraySpec, checksum: str) -> None:
    array = open_array(backend, location, spec, SIGNS, 1)
    read_checked(array, backend, location, spec, slice(0, SIGNS), checksum)


def _check_blocks(
    backend: Backend, location: Location, manifest: dict[str, object]
) -> Iterator[Finding]:
    element = BlockElement(backend, location, manifest)
    findings, sound = check_metadata(backend, location, element.arrays, element.plan)
    yield from findings
    for block in sorted(element.committed()):
        yield from _check_block(backend, location, element, sound, block)
    if error := reading_error(lambda: element.listed_gaps):
        yield Finding.from_error(error, "summary", location, "summary.json")
    yield from _check_uncommitted(backend, location, element, known=error is None)
    if error := reading_error(_require_fingerprints, element):
        yield Finding.at("note", "unnamed", location, "commits", str(error))
    yield from _check_checkpoints(backend, location)
    yield from _check_quarantine(backend, location)


def _check_block(
    backend: Backend,
    location: Location,
    element: BlockElement,
    specs: Sequence[ArraySpec],
    block: int,
) -> Iterator[Finding]:
    if error := reading_error(_require_planned, element, block):
        yield Finding.from_error(error, "commit", location, _commit_name(location, block), block)
        return
    wanted = element.prefetched([(spec.path, block) for spec in specs])
    for spec, each in zip(specs, wanted, strict=True):
        key = chunk_key(location, spec, block)
        if error := zarr_reading_error(backend, [key], partial(element.read_array, *each)):
            yield Finding.from_error(error, "chunk", location, _name(location, key), block)
    if error := reading_error(element.read_table, block):
        yield Finding.from_error(error, "part", location, f"samples/{part_name(block)}", block)


def _name(location: Location, key: str) -> str:
    return key.removeprefix(f"{location.folder}/")


def _commit_name(location: Location, block: int) -> str:
    return _name(location, commit_key(location, block))


def _require_planned(element: BlockElement, block: int) -> None:
    """Refuse a record of another block plan; raises DamagedError, and what reading it raises."""
    rows, planned = element.commit(block).rows, element.plan.size(block)
    if rows != planned:
        raise DamagedError(
            f"the commit record of block {block} of {element.kind}/{element.ref} is of {rows} "
            f"rows, but the manifest plans {planned}"
        )


def _require_fingerprints(element: BlockElement) -> None:
    """Raise StoreError where an intact commit or the summary does not state the element."""
    for block in sorted(element.committed()):
        with suppress(DamagedError):
            if element.commit(block).element is None:
                raise StoreError(f"the commits of {element.kind}/{element.ref} state no element")
    with suppress(DamagedError):
        if "element" not in (element.summary_record() or {"element": ""}):
            raise StoreError(f"the summary of {element.kind}/{element.ref} states no element")


def _check_quarantine(backend: Backend, location: Location) -> Iterator[Finding]:
    """Check why blocks failed: only `regroup ls` uses it."""
    for block in quarantined_blocks(backend, location):
        if error := reading_error(read_quarantine, backend, location, block):
            name = _name(location, quarantine_key(location, block))
            yield Finding.from_error(error, "quarantine", location, name)


def _check_checkpoints(backend: Backend, location: Location) -> Iterator[Finding]:
    """Note checkpoints, intact or not: an attempt removes a damaged one when it reads it."""
    if blocks := checkpointed_blocks(backend, location):
        problem = (
            f"checkpoints of blocks ({format_blocks(blocks)}): the command that writes them "
            "resumes from there, and removes them"
        )
        yield Finding.at("note", "leftover", location, CHECKPOINTS, problem)


def _check_uncommitted(
    backend: Backend, location: Location, element: BlockElement, *, known: bool
) -> Iterator[Finding]:
    """Blocks without a record: left to do, but damage once the element was finalised with them.

    Args:
        backend: of the store.
        location: of the element.
        element: to check.
        known: its summary can be read, and so lists which blocks it was finalised without.
    """
    missing = element.missing()
    if not missing:
        return
    if not backend.exists(location.key("summary.json")):
        yield from _check_gap(backend, location, element, missing)
        return
    if known and (gaps := [block for block in missing if block in element.listed_gaps]):
        problem = (
            f"finalised without {len(gaps)} of {element.plan.blocks} blocks "
            f"({format_blocks(gaps)}): their samples are read as failed rows"
        )
        yield Finding.at("note", "gap", location, "summary.json", problem)
        missing = [block for block in missing if block not in gaps]
    for block in missing:
        name = _commit_name(location, block)
        problem = f"{location.key(name)} is missing, but {location.ref} was finalised with it"
        yield Finding.at("damaged", "commit", location, name, problem, block)


def _check_gap(
    backend: Backend, location: Location, element: BlockElement, missing: list[int]
) -> Iterator[Finding]:
    problem = (
        f"{len(missing)} of {element.plan.blocks} blocks are not committed "
        f"({format_blocks(missing)}): the command that writes them resumes when run again"
    )
    yield Finding.at("note", "gap", location, "commits", problem)
    if stray := sorted(_written(backend, location, element).intersection(missing)):
        problem = (
            f"values of blocks that are not committed ({format_blocks(stray)}): never read; "
            "the next run writes over them"
        )
        yield Finding.at("note", "leftover", location, "samples", problem)


def _written(backend: Backend, location: Location, element: BlockElement) -> set[int]:
    """Blocks of which a chunk or a part exists."""
    parts = backend.children(location.key("samples"))
    found = {int(name[5:-8]) for name in parts if name[5:-8].isdigit()}
    for spec in element.arrays:
        chunks = backend.children(location.key(spec.path, "c"))
        found |= {int(name) for name in chunks if name.isdigit()}
    return found


_CHECKS: dict[str, Callable[[Backend, Location, dict[str, Any]], Iterator[Finding]]] = {
    **dict.fromkeys(ROW_KINDS, _check_rows),
    "banks": _check_bank,
    **dict.fromkeys(BLOCK_KINDS, _check_blocks),
}
