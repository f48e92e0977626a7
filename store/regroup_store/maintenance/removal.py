"""Removal of elements that nothing refers to, so that no interrupted removal looks complete.

docs/format.md, "Removing elements", defines the order of the steps, and why.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from regroup_store.errors import StoreError
from regroup_store.format.fingerprint import canonical_json, short_fingerprint
from regroup_store.format.lineage import parents
from regroup_store.format.manifests import BLOCK_KINDS, KINDS, Location, folders, read_manifest
from regroup_store.kinds.studies import read_study, study_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from regroup_store.backends.base import Backend
    from regroup_store.format.store import Store

# Marks an element that is being removed: it is written first and removed last.
REMOVAL = "removal.json"
DELETES_AT_ONCE = 16
# Part of the output of `regroup gc --json`. whole: nothing is missing. unfinished: blocks or the
# summary are missing. half-removed: its removal was begun and not finished. rest: files without a
# manifest, which nothing reads.
State = Literal["whole", "unfinished", "half-removed", "rest"]


@dataclass(frozen=True)
class Member:
    """An element, or the leftovers of one, in the reference graph of a store.

    Attributes:
        location: where it is.
        state: how much of it there is.
        created: when, UTC ISO 8601, or None where that is unknown.
        sources: the elements that it comes from.
        companions: elements kept and removed with it, although it does not come from them.
        problem: why its sources are unknown, or None.
    """

    location: Location
    state: State
    created: str | None = None
    sources: frozenset[Location] = frozenset()
    companions: frozenset[Location] = frozenset()
    problem: str | None = None


@dataclass(frozen=True)
class RemovalPlan:
    """What would be removed, and what would stay.

    Attributes:
        unreferenced: what would be removed, children before parents.
        kept: everything else.
        unfinished: those of `kept` that are kept for unfinished work alone.
        unknown: those of `kept` that cannot be read.
    """

    unreferenced: tuple[Member, ...]
    kept: tuple[Member, ...]
    unfinished: tuple[Member, ...] = ()
    unknown: tuple[Member, ...] = ()


@dataclass(frozen=True)
class _Family:
    """Every member of a store, by location."""

    members: Mapping[Location, Member]

    def closure(self, roots: Iterable[Location]) -> set[Location]:
        """The roots, what they come from, and the companions of all these."""
        found: set[Location] = set()
        waiting = [root for root in roots if root in self.members]
        while waiting:
            location = waiting.pop()
            if location not in found:
                found.add(location)
                member = self.members[location]
                waiting += [*member.sources, *member.companions]
        return found

    def depth(self, location: Location) -> int:
        """Length of the longest chain of sources above an element."""
        sources = self.members[location].sources
        return 1 + max((self.depth(source) for source in sources), default=-1)


def plan_removal(
    store: Store,
    keep: Iterable[Location] = (),
    unfinished_refs: Collection[str] = (),
    *,
    unfinished: bool = False,
) -> RemovalPlan:
    """Plan the removal of what neither a study's results nor `keep` refer to, however indirectly.

    Args:
        store: to plan for.
        keep: further elements to keep.
        unfinished_refs: refs of unfinished work.
        unfinished: remove unfinished work too; otherwise it is kept, as are block elements that
            are not finalised.

    Raises:
        StoreError: the store cannot be listed.
        DamagedError: the results of a study cannot be read.
    """
    family = _family(store)
    named = family.closure([*keep, *study_elements(store, family.members)])
    begun = [m.location for m in family.members.values() if m.state == "unfinished"]
    begun += [each for each in family.members if each.ref in unfinished_refs]
    unknown = [m for m in family.members.values() if m.problem]
    started = family.closure([] if unfinished else begun)
    kept = named | started | {m.location for m in unknown}
    gone = [location for location in family.members if location not in kept]
    ordered = sorted(gone, key=family.depth, reverse=True)
    return RemovalPlan(
        unreferenced=tuple(family.members[each] for each in ordered),
        kept=tuple(m for each, m in family.members.items() if each in kept),
        unfinished=tuple(m for each, m in family.members.items() if each in started - named),
        unknown=tuple(unknown),
    )


def study_elements(store: Store, known: Iterable[Location]) -> set[Location]:
    """Select those of `known` that the results of any study name, by ref or by fingerprint."""
    words = {word for name in study_names(store) for word in _words(read_study(store, name))}
    return {each for each in known if each.ref in words or each.short_fingerprint in words}


def _words(value: object) -> Iterator[str]:
    """Every string in plain JSON; a fingerprint also in the short form that names folders."""
    if isinstance(value, str):
        yield value
        if len(value) == 64:
            yield short_fingerprint(value)
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _words(item)


def _family(store: Store) -> _Family:
    places = [location for kind in KINDS for location in folders(store.backend, kind)]
    manifests = {each: _manifest(store.backend, each) for each in places}
    by_short = {(each.kind, each.short_fingerprint): each for each in places}
    listings = _by_source(manifests)
    members = {
        location: _readable(store.backend, location, manifest, by_short, listings)
        if isinstance(manifest, dict)
        else Member(location, "unfinished" if manifest else "rest", problem=manifest)
        for location, manifest in manifests.items()
    }
    return _Family(_with_digests(members))


def _readable(
    backend: Backend,
    location: Location,
    manifest: Mapping[str, Any],
    by_short: Mapping[tuple[str, str], Location],
    listings: Mapping[object, list[Location]],
) -> Member:
    named = parents(location.kind, manifest["inputs"])
    found = {by_short.get((kind, short_fingerprint(fingerprint))) for kind, fingerprint in named}
    listed = listings.get(manifest["source_spec"], []) if location.kind == "indexes" else []
    return Member(
        location,
        _state(backend, location),
        _created(manifest),
        frozenset(each for each in found if each),
        frozenset(listed),
    )


def _created(manifest: Mapping[str, Any]) -> str | None:
    recorded = manifest.get("recorded")
    return recorded.get("created") if isinstance(recorded, dict) else None


def _manifest(backend: Backend, location: Location) -> dict[str, Any] | str | None:
    """A manifest, or why it cannot be read; None where only leftovers of an element remain."""
    try:
        return read_manifest(backend, location)
    except FileNotFoundError:
        committed = location.kind in BLOCK_KINDS and backend.children(location.key("commits"))
        return "its manifest is missing, but blocks are committed" if committed else None
    except StoreError as error:
        return str(error)


def _state(backend: Backend, location: Location) -> State:
    if location.kind not in BLOCK_KINDS or backend.exists(location.key("summary.json")):
        return "whole"
    return "half-removed" if backend.exists(location.key(REMOVAL)) else "unfinished"


def _by_source(
    manifests: Mapping[Location, dict[str, Any] | str | None],
) -> dict[object, list[Location]]:
    """Listings by what they list: an index is found again through them without reading images."""
    found: dict[object, list[Location]] = {}
    for location, manifest in manifests.items():
        if location.kind == "listings" and isinstance(manifest, dict):
            found.setdefault(manifest["source_spec"], []).append(location)
    return found


def _with_digests(members: dict[Location, Member]) -> dict[Location, Member]:
    """The members, with the digests of each listing as its companions."""
    digests: dict[Location, set[Location]] = {}
    for member in members.values():
        for source in member.sources if member.location.kind == "digests" else ():
            digests.setdefault(source, set()).add(member.location)
    for listing, found in digests.items():
        members[listing] = replace(members[listing], companions=frozenset(found))
    return members


def remove(store: Store, member: Member) -> None:
    """Remove a member, whose children must have been removed before.

    Interrupted at any point, no reader takes what is left for a complete element, and a second
    call completes the removal.

    Raises:
        StoreError: the store cannot be written.
    """
    backend, location = store.backend, member.location
    if location.kind in BLOCK_KINDS and member.state != "rest":
        backend.replace(location.key(REMOVAL), canonical_json({"removal": location.folder}) + b"\n")
    keys = [*backend.keys(location.folder), *backend.partials(location.folder)]
    with ThreadPoolExecutor(DELETES_AT_ONCE) as pool:
        for group in _groups(location, keys):
            list(pool.map(backend.delete, group))
    backend.prune(location.folder)


def _groups(location: Location, keys: Iterable[str]) -> Iterator[list[str]]:
    """Keys in the order of their removal: each group is gone before the next is touched.

    Without its summary an element is not finalised, without commits none of its blocks is real,
    and without its manifest it cannot be seen; only then are values removed.
    """
    groups: list[list[str]] = [[] for _ in range(5)]
    for key in keys:
        groups[_rank(key.removeprefix(f"{location.folder}/"))].append(key)
    return (group for group in groups if group)


def _rank(name: str) -> int:
    if name.startswith("commits/"):
        return 1
    return {"summary.json": 0, "manifest.json": 2, REMOVAL: 4}.get(name, 3)
