"""Opening a store, and listing what it holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from regroup_store.backends.local import LocalBackend
from regroup_store.backends.open import backend_for
from regroup_store.errors import StoreError, StoreUsageError
from regroup_store.format.commits import committed_blocks
from regroup_store.format.fingerprint import canonical_json, parse_record
from regroup_store.format.manifests import (
    BLOCK_KINDS,
    KINDS,
    SCHEMA_VERSION,
    Location,
    block_plan,
    find_location,
    known_locations,
    lost_manifest,
    read_manifest,
    require_schema_version,
)
from regroup_store.format.quarantine import Quarantined, quarantined_blocks, read_quarantine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regroup_store.backends.base import Backend

MARKER = "store.json"
FORMAT = "regroup-store"


@dataclass(frozen=True)
class ElementInfo:
    """Summary of an element, as `regroup ls` shows it.

    Attributes:
        kind: of the element.
        ref: `<name>-<first 16 characters of the fingerprint>`.
        name: of the element.
        fingerprint: 64 hex characters, or 16 where the manifest cannot be read.
        rows: number of samples.
        blocks_committed: blocks that have a commit record.
        blocks_planned: blocks of its plan.
        finalised: whether it has a summary.
        size_bytes: of all its files.
        problem: why the manifest cannot be read, or None.
        missing_blocks: those that are not committed.
        quarantined: those of the missing blocks that failed in the last run.
    """

    kind: str
    ref: str
    name: str
    fingerprint: str
    rows: int
    blocks_committed: int
    blocks_planned: int
    finalised: bool
    size_bytes: int
    problem: str | None = None
    missing_blocks: tuple[int, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()


@dataclass(frozen=True)
class Store:
    """An open store: a backend whose marker has been read."""

    backend: Backend

    @property
    def uri(self) -> str:
        """The location of the store; `open_store(uri)` opens it in any process."""
        return self.backend.uri

    def elements(self, kind: str | None = None) -> list[ElementInfo]:
        """List what the store holds, of one kind or all; damaged elements are listed too.

        Raises:
            StoreUsageError: there is no such kind.
        """
        kinds = KINDS if kind is None else (kind,)
        if kind is not None and kind not in KINDS:
            raise StoreUsageError(f"unknown kind {kind!r}: choose one of {', '.join(KINDS)}")
        return [
            self.info(location)
            for each in kinds
            for location in known_locations(self.backend, each)
        ]

    def find(self, kind: str, fingerprint: str) -> str | None:
        """Find the ref of the element with exactly this fingerprint."""
        location = find_location(self.backend, kind, fingerprint)
        return location.ref if location else None

    def info(self, location: Location) -> ElementInfo:
        """Summarise one element, damaged or not."""
        size = self.backend.size(location.folder)
        try:
            manifest = read_manifest(self.backend, location)
            return self._info(location, manifest, size)
        except FileNotFoundError:
            problem = lost_manifest(location)
        except StoreError as error:
            problem = str(error)
        return ElementInfo(
            location.kind, location.ref, location.name, location.short_fingerprint,
            0, 0, 0, False, size, problem,
        )  # fmt: skip

    def _info(self, location: Location, manifest: dict[str, object], size: int) -> ElementInfo:
        rows = int(str(manifest.get("rows", 0)))
        # An index's or a bank's manifest is written last: it is one block, and there.
        info = ElementInfo(
            location.kind, location.ref, location.name, str(manifest["fingerprint"]),
            rows, 1, 1, True, size,
        )  # fmt: skip
        return self._progress(info, location, manifest) if location.kind in BLOCK_KINDS else info

    def _progress(
        self, info: ElementInfo, location: Location, manifest: dict[str, object]
    ) -> ElementInfo:
        plan = block_plan(manifest, location)
        committed = committed_blocks(self.backend, location, plan)
        missing = tuple(sorted(set(range(plan.blocks)) - committed))
        return replace(
            info,
            blocks_committed=len(committed),
            blocks_planned=plan.blocks,
            finalised=self.backend.exists(location.key("summary.json")),
            missing_blocks=missing,
            quarantined=self._quarantined(location, missing),
        )

    def _quarantined(self, location: Location, missing: Sequence[int]) -> tuple[Quarantined, ...]:
        blocks = quarantined_blocks(self.backend, location) if missing else []
        return tuple(self._reason(location, block) for block in blocks if block in missing)

    def _reason(self, location: Location, block: int) -> Quarantined:
        """Read why a block failed; a record that cannot be read must not end a listing."""
        try:
            return read_quarantine(self.backend, location, block)
        except (StoreError, FileNotFoundError) as error:
            return Quarantined(block, 0, str(error))


def open_store(uri: str, *, create: bool = False, writable: bool = True) -> Store:
    """Open the store at `uri`, a folder or `s3://bucket/prefix`.

    Args:
        uri: of the store.
        create: make a store where there is none.
        writable: refuse a folder that cannot be written now rather than after hours of work.

    Raises:
        StoreUsageError: there is no store, or something else is there.
        SchemaVersionError: this release cannot read it.
    """
    backend = backend_for(uri)
    if isinstance(backend, LocalBackend):
        backend.prepare(create=create)
    if not backend.exists(MARKER):
        _start(backend, create=create)
    require_marker(backend)
    if writable and isinstance(backend, LocalBackend):
        backend.require_writable()
    return Store(backend)


def _start(backend: Backend, *, create: bool) -> None:
    """Write the marker into an empty place."""
    others = [name for name in backend.children() if name != MARKER]
    if others and not backend.exists(MARKER):
        raise StoreUsageError(
            f"{backend.uri} is not a regroup store: it has no {MARKER} but holds {others[0]}; "
            "name a store, or a new or empty place to make one"
        )
    if not create:
        raise StoreUsageError(f"there is no store at {backend.uri}: check --store")
    backend.create(MARKER, marker_bytes())


def marker_bytes() -> bytes:
    """Content of a store's marker file."""
    return canonical_json({"format": FORMAT, "schema_version": SCHEMA_VERSION}) + b"\n"


def require_marker(backend: Backend) -> None:
    """Check the marker file of a store.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is not a JSON object.
        StoreUsageError: it is of another format or schema version.
    """
    where = f"{MARKER} of the store {backend.uri}"
    found = parse_record(backend.read(MARKER), where)
    if found.get("format") != FORMAT:
        raise StoreUsageError(f"{backend.uri} is not a regroup store: {MARKER} is not one of ours")
    require_schema_version(found.get("schema_version"), where)
