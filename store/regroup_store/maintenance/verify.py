"""Verification of everything stored against its checksums (docs/format.md, "Verifying").

Reads one block of one array at a time, and continues after every finding.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from regroup_store.backends.open import backend_for
from regroup_store.errors import (
    DamagedError,
    FingerprintMismatchError,
    SchemaVersionError,
    StoreError,
    StoreUnavailableError,
    StoreUsageError,
)
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
from regroup_store.format.fingerprint import parse_record, short_fingerprint, unseal
from regroup_store.format.lineage import parents
from regroup_store.format.manifests import (
    BLOCK_KINDS,
    KINDS,
    ROW_KINDS,
    Location,
    find_location,
    folders,
    matching_locations,
    read_manifest,
)
from regroup_store.format.parquet_parts import part_name, read_part
from regroup_store.format.quarantine import quarantine_key, quarantined_blocks, read_quarantine
from regroup_store.format.store import MARKER, Store, open_store, require_marker
from regroup_store.kinds.banks import SIGNS
from regroup_store.maintenance.findings import (
    Finding,
    Level,
    describe_error,
    level_of_error,
    reading_error,
    zarr_reading_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from regroup_store.backends.base import Backend


def open_to_verify(uri: str) -> Store:
    """Open the store at `uri` even where its marker is damaged or missing.

    Raises:
        StoreUsageError: there is no store.
        SchemaVersionError: this release cannot read it.
    """
    try:
        return open_store(uri, writable=False)
    except SchemaVersionError:
        raise
    except StoreError:
        store = Store(backend_for(uri))
        with contextlib.suppress(StoreUnavailableError):
            if select_locations(store):
                return store
        raise


def select_locations(store: Store, refs: Sequence[str] = ()) -> list[Location]:
    """Select what `refs` name, of any kind, or everything; finished or not.

    Args:
        store: where to look.
        refs: names, `<name>-<fp>` or starts of fingerprints, with or without `<kind>/` in front.

    Raises:
        StoreUsageError: a ref names nothing.
    """
    known = [location for kind in KINDS for location in folders(store.backend, kind)]
    if not refs:
        return known
    wanted = {location for ref in refs for location in _named(store, known, ref)}
    return [location for location in known if location in wanted]


def _named(store: Store, known: list[Location], ref: str) -> list[Location]:
    kind, _, rest = ref.rpartition("/")
    found = matching_locations([each for each in known if kind in ("", each.kind)], rest)
    if not found:
        names = ", ".join(location.folder for location in known) or "nothing"
        raise StoreUsageError(f"there is no {ref!r} in the store {store.uri}; it holds: {names}")
    return found


def verify_store(store: Store, refs: Sequence[str] = ()) -> Iterator[Finding]:
    """Check the marker and the elements that `refs` name (default: all).

    Raises:
        StoreUsageError: a ref names nothing.
        StoreError: the store cannot be listed.
    """
    yield from check_marker(store)
    for location in select_locations(store, refs):
        yield from check_element(store, location)


def check_marker(store: Store) -> Iterator[Finding]:
    """Check store.json."""
    if error := reading_error(require_marker, store.backend):
        level, problem = level_of_error(error), describe_error(error, MARKER)
        # Another format, in the midst of our elements, is a damaged marker.
        if isinstance(error, StoreUsageError) and not isinstance(error, SchemaVersionError):
            level = "damaged"
        yield Finding(level, "marker", "", "", None, MARKER, problem)


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
    yield from _CHECKS[location.kind](store.backend, location, manifest)
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
    if location.kind in BLOCK_KINDS and backend.children(location.key("commits")):
        problem = f"{location.key('manifest.json')} is missing, but blocks are committed"
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
    findings, sound = _check_metadata(backend, location, specs, BlockPlan(SIGNS, 1))
    yield from findings
    for spec, checksum in zip(specs, manifest["checksums"], strict=True):
        if spec in sound:
            keys = [chunk_key(location, spec, sign) for sign in range(SIGNS)]
            read = partial(_read_mixtures, backend, location, spec, checksum)
            if error := zarr_reading_error(backend, keys, read):
                yield Finding.from_error(error, "chunk", location, spec.path)


def _read_mixtures(backend: Backend, location: Location, spec: ArraySpec, checksum: str) -> None:
    array = open_array(backend, location, spec, SIGNS)
    read_checked(array, backend, location, spec, slice(0, SIGNS), checksum)


def _check_blocks(
    backend: Backend, location: Location, manifest: dict[str, object]
) -> Iterator[Finding]:
    element = BlockElement(backend, location, manifest)
    findings, sound = _check_metadata(backend, location, element.arrays, element.plan)
    yield from findings
    for block in sorted(element.committed()):
        yield from _check_block(backend, location, element, sound, block)
    if error := reading_error(lambda: element.listed_gaps):
        yield Finding.from_error(error, "summary", location, "summary.json")
    yield from _check_uncommitted(backend, location, element, known=error is None)
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


def _check_metadata(
    backend: Backend, location: Location, specs: Sequence[ArraySpec], plan: BlockPlan
) -> tuple[list[Finding], list[ArraySpec]]:
    """Check zarr's metadata.

    Returns:
        The findings, and the arrays whose metadata is sound.
    """
    findings, sound = [], []
    roots = dict.fromkeys(s.path.partition("/")[0] for s in specs if "/" in s.path)
    for name in (f"{root}/zarr.json" for root in roots):
        if error := reading_error(_require_group, backend, location.key(name)):
            findings.append(Finding.from_error(error, "metadata", location, name))
    for spec in specs:
        name = f"{spec.path}/zarr.json"
        read = partial(_require_chunks, backend, location, spec, plan)
        if error := zarr_reading_error(backend, [location.key(name)], read):
            findings.append(Finding.from_error(error, "metadata", location, name))
        else:
            sound.append(spec)
    return findings, sound


def _require_group(backend: Backend, key: str) -> None:
    """Check what other zarr readers need to list the arrays of a group."""
    record = parse_record(backend.read(key), f"{key} of the store {backend.uri}")
    if (record.get("node_type"), record.get("zarr_format")) != ("group", 3):
        raise DamagedError(f"{key} of the store {backend.uri} is not the metadata of a group")


def _require_chunks(backend: Backend, location: Location, spec: ArraySpec, plan: BlockPlan) -> None:
    chunks, planned = (
        open_array(backend, location, spec, plan.rows).chunks,
        spec.shape(plan.size(0)),
    )
    if chunks != planned:
        raise DamagedError(
            f"{location.key(spec.path)} of the store {backend.uri} has chunks of {chunks}, but the "
            f"manifest's blocks are {planned}"
        )


_CHECKS: dict[str, Callable[[Backend, Location, dict[str, Any]], Iterator[Finding]]] = {
    **dict.fromkeys(ROW_KINDS, _check_rows),
    "banks": _check_bank,
    **dict.fromkeys(BLOCK_KINDS, _check_blocks),
}
