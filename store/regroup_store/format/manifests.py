"""Manifests: what an element is, under which fingerprint, and how a name finds it.

A manifest is created once and never changed, with the exceptions that docs/format.md lists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regroup_store.errors import (
    DamagedError,
    FingerprintMismatchError,
    GapError,
    LinkError,
    SchemaVersionError,
    StoreUsageError,
)
from regroup_store.format.block_plan import BlockPlan
from regroup_store.format.fingerprint import (
    SHORT_LENGTH,
    fingerprint,
    parse_record,
    short_fingerprint,
    unseal,
)
from regroup_store.format.manifest_checks import require_members

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regroup_store.backends.base import Backend

SCHEMA_VERSION = 1
ROW_KINDS = ("listings", "indexes")
BLOCK_KINDS = ("digests", "features", "adversarials", "votes")
KINDS = (*ROW_KINDS, *BLOCK_KINDS, "banks")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FOLDER = re.compile(rf"({_NAME.pattern})-([0-9a-f]{{16}})")
_PREFIX = re.compile(r"[0-9a-f]{4,64}")
_FULL = re.compile(r"[0-9a-f]{64}")


def validate_name(name: str) -> str:
    """Check that `name` can name an element, and return it.

    Raises:
        StoreUsageError: it is empty, too long, or has other characters.
    """
    if not _NAME.fullmatch(name):
        raise StoreUsageError(
            f"{name!r} cannot name an element: use up to 100 letters, digits, '.', '_' and '-', "
            "a letter or digit first"
        )
    return name


def element_fingerprint(kind: str, inputs: Mapping[str, object]) -> str:
    """Compute the fingerprint of all that determines an element's content."""
    if clash := {"schema_version", "kind"} & set(inputs):
        raise ValueError(f"inputs may not contain {sorted(clash)}: the store adds them")
    return fingerprint({"schema_version": SCHEMA_VERSION, "kind": kind, **inputs})


def require_schema_version(found: object, where: str) -> None:
    """Refuse any schema version but this release's, before trusting anything else in the file.

    Raises:
        SchemaVersionError: another version; the message says what can read it.
    """
    if found == SCHEMA_VERSION:
        return
    if isinstance(found, int) and found > SCHEMA_VERSION:
        advice = "install a newer release of regroup-ray to read it"
    else:
        advice = "read it with the release that wrote it, or write it again"
    raise SchemaVersionError(
        f"{where} has schema version {found}, this release reads version {SCHEMA_VERSION}: {advice}"
    )


class StatedInputs(dict[str, object]):
    """The inputs that a manifest states: one that is asked for and not stated is damage.

    Attributes:
        where: the manifest, for the sentence.
    """

    where = "a manifest"

    def __missing__(self, key: str) -> object:
        """Refuse an input that is not there, wherever it is needed."""
        raise DamagedError(
            f"{self.where} is damaged: its inputs lack {key!r}; restore it, or remove the folder "
            "and run the command again"
        )


@dataclass(frozen=True)
class Location:
    """The place of an element: `<kind>/<name>-<first 16 characters of its fingerprint>`."""

    kind: str
    ref: str

    @property
    def folder(self) -> str:
        """The key prefix of everything that belongs to the element."""
        return f"{self.kind}/{self.ref}"

    @property
    def name(self) -> str:
        """The element's name, without the fingerprint."""
        return self.ref[: -SHORT_LENGTH - 1]

    @property
    def short_fingerprint(self) -> str:
        """The first 16 characters of the element's fingerprint."""
        return self.ref[-SHORT_LENGTH:]

    def key(self, *parts: str) -> str:
        """Join the key of something inside the element."""
        return "/".join((self.folder, *parts))


def new_location(kind: str, name: str, fingerprint: str) -> Location:
    """Place of a new element of this name and fingerprint."""
    return Location(kind, f"{validate_name(name)}-{short_fingerprint(fingerprint)}")


def read_manifest(backend: Backend, location: Location) -> dict[str, object]:
    """Read a manifest and check, in order, its schema version, fingerprint and checksum.

    Raises:
        FileNotFoundError: there is no manifest.
        SchemaVersionError: this release cannot read it.
        FingerprintMismatchError: it contradicts its inputs or its folder.
        DamagedError: it is not what was written.
    """
    where = f"{location.folder}/manifest.json of the store {backend.uri}"
    data = backend.read(location.key("manifest.json"))
    claimed = parse_record(data, where)
    require_schema_version(claimed.get("schema_version"), where)
    _require_fingerprint(claimed, location, where)
    manifest = unseal(data, where)
    require_members(location.kind, manifest, where)
    if manifest.get("name") != location.name:
        raise FingerprintMismatchError(
            f"{where} is that of {str(manifest.get('name'))!r}: the folder was renamed; give it "
            "its name back"
        )
    inputs = manifest["inputs"] = StatedInputs(manifest["inputs"])  # type: ignore[call-overload]
    inputs.where = where
    return manifest


def _require_fingerprint(manifest: Mapping[str, object], location: Location, where: str) -> None:
    """Recompute the fingerprint from the inputs and compare it with manifest and folder."""
    inputs, stated = manifest.get("inputs"), manifest.get("fingerprint")
    if not isinstance(inputs, dict) or manifest.get("kind") != location.kind:
        raise DamagedError(f"{where} is damaged: it does not describe {location.kind}")
    try:
        actual = element_fingerprint(location.kind, inputs)
    except ValueError as error:
        raise DamagedError(f"{where} is damaged: {error}") from error
    given = short_fingerprint(actual)
    if stated != actual or given != location.short_fingerprint:
        raise FingerprintMismatchError(
            f"{where} states fingerprint {short_fingerprint(str(stated))}, but its inputs give "
            f"{given}: it was edited or moved; restore it, or remove the folder and run the "
            "command again"
        )


def block_plan(manifest: Mapping[str, object], location: Location) -> BlockPlan:
    """Block plan of a block element, from its manifest.

    Raises:
        DamagedError: the manifest has none.
    """
    try:
        return BlockPlan(int(str(manifest["rows"])), int(str(manifest["block_rows"])))
    except (KeyError, ValueError) as error:
        raise DamagedError(f"{location.folder}/manifest.json has no block plan: {error}") from error


def folders(backend: Backend, kind: str) -> list[Location]:
    """List where elements of a kind are or were begun, with a manifest or without."""
    return [Location(kind, ref) for ref in backend.children(kind) if _FOLDER.fullmatch(ref)]


def locations(backend: Backend, kind: str) -> list[Location]:
    """List the elements of a kind that have a manifest, by name; one behind a link may have it."""
    return [location for location in folders(backend, kind) if _has_manifest(backend, location)]


def _has_manifest(backend: Backend, location: Location) -> bool:
    try:
        return backend.exists(location.key("manifest.json"))
    except LinkError:
        return True


def known_locations(backend: Backend, kind: str) -> list[Location]:
    """List the elements of a kind, by name, with those that have lost their manifest."""
    found = folders(backend, kind)
    return [each for each in found if _has_manifest(backend, each) or has_lost(backend, each)]


def has_lost(backend: Backend, location: Location) -> bool:
    """Whether an element without a manifest has committed blocks, so that it had one."""
    return location.kind in BLOCK_KINDS and bool(backend.children(location.key("commits")))


def lost_manifest(location: Location) -> str:
    """Say that an element has lost its manifest."""
    return f"{location.key('manifest.json')} is missing, but blocks are committed"


def locate(backend: Backend, kind: str, ref: str) -> Location:
    """Find the one element that `ref` names.

    Args:
        backend: of the store.
        kind: of the element.
        ref: a name, `<name>-<fp>`, or the start of a fingerprint.

    Raises:
        StoreUsageError: none or several match; the message lists what there is.
        GapError: a whole fingerprint, which records name elements by, matches none.
        DamagedError: its manifest is lost.
    """
    known = known_locations(backend, kind)
    matching = matching_locations(known, ref)
    if len(matching) == 1:
        require_kept(backend, matching[0])
        return matching[0]
    if matching:
        names = ", ".join(location.ref for location in matching)
        raise StoreUsageError(
            f"{ref!r} names {len(matching)} {kind} in the store {backend.uri}: say which of {names}"
        )
    names = ", ".join(location.ref for location in known) or "none"
    if _FULL.fullmatch(ref):  # of a record, not of somebody's hand
        raise GapError(
            f"the {kind} of fingerprint {short_fingerprint(ref)} are named in the store "
            f"{backend.uri}, but are not there; it holds: {names}: restore them, or run the "
            "command that made them again"
        )
    raise StoreUsageError(
        f"there are no {kind} {ref!r} in the store {backend.uri}; it holds: {names}"
    )


def require_kept(backend: Backend, location: Location) -> None:
    """Check that an element still has its manifest.

    Raises:
        DamagedError: it has lost it.
    """
    if not _has_manifest(backend, location):
        raise DamagedError(
            f"{lost_manifest(location)} in the store {backend.uri}: `regroup verify` says what to "
            "run again"
        )


def matching_locations(known: list[Location], ref: str) -> list[Location]:
    """Select those of `known` that `ref` names: exact matches, else by name or fingerprint."""
    exact = [location for location in known if location.ref == ref]
    return exact or [location for location in known if _matches(location, ref)]


def _matches(location: Location, ref: str) -> bool:
    if location.name == ref:
        return True
    return bool(_PREFIX.fullmatch(ref)) and location.short_fingerprint.startswith(
        short_fingerprint(ref)
    )


def find_location(backend: Backend, kind: str, fingerprint: str) -> Location | None:
    """Find the element with exactly this fingerprint, whatever its name."""
    for location in locations(backend, kind):
        if location.short_fingerprint == short_fingerprint(fingerprint):
            stated = read_manifest(backend, location)["fingerprint"]
            return location if stated == fingerprint else None
    return None
