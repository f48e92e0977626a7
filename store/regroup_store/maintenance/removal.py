"""Removal: what nothing refers to, and taking it away so that no half of it is taken for whole.

docs/format.md, "Removing elements", says in which order, and why.
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

# Says that an element is being removed: it is written first and goes last.
REMOVAL = "removal.json"
DELETES_AT_ONCE = 16
# whole: finalised, or written whole. unfinished: blocks or the summary are missing. half-removed:
# its removal was begun and not finished. rest: what is left without a manifest, read by nobody.
State = Literal["complete", "unfinished", "half-removed", "leftover"]


@dataclass(frozen=True)
class Member:
    """An element, or the rest of one, as removal sees it.

    `sources`: the elements that it comes from; `companions`: those that go where it goes, though
    it does not come from them; `problem`: why what it comes from is not known, or None.
    """

    location: Location
    state: State
    created: str | None = None
    sources: frozenset[Location] = frozenset()
    companions: frozenset[Location] = frozenset()
    problem: str | None = None


@dataclass(frozen=True)
class RemovalPlan:
    """What would be removed and what would stay.

    `unreferenced`: children before parents; `kept`: all others; `unfinished`: those of them that
    are kept for unfinished work alone; `unknown`: members that cannot be read (they are kept).
    """

    unreferenced: tuple[Member, ...]
    kept: tuple[Member, ...]
    unfinished: tuple[Member, ...] = ()
    unknown: tuple[Member, ...] = ()


@dataclass(frozen=True)
class _Family:
    """Every member of a store by where it is."""

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
        """How many elements lie one above the other over this one."""
        sources = self.members[location].sources
        return 1 + max((self.depth(source) for source in sources), default=-1)


def plan_removal(
    store: Store,
    keep: Iterable[Location] = (),
    unfinished_refs: Collection[str] = (),
    *,
    unfinished: bool = False,
) -> RemovalPlan:
    """Return what no study's results and none of `keep` refers to, directly or through others.

    Unfinished work is referred to as well: block elements that are not finalised, and
    `unfinished_refs`; with `unfinished` it is not. Raises StoreError when the store cannot be
    listed, DamagedError for results of a study that cannot be read.
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
    """Return those of `known` that the results of any study name, by ref or by fingerprint."""
    words = {word for name in study_names(store) for word in _words(read_study(store, name))}
    return {each for each in known if each.ref in words or each.short_fingerprint in words}


def _words(value: object) -> Iterator[str]:
    """Every string in plain JSON; of a fingerprint what names folders as well."""
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
        else Member(location, "unfinished" if manifest else "leftover", problem=manifest)
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
    """A manifest, or why there is none that can be read; None for the rest of an element."""
    try:
        return read_manifest(backend, location)
    except FileNotFoundError:
        committed = location.kind in BLOCK_KINDS and backend.children(location.key("commits"))
        return "its manifest is missing, but blocks are committed" if committed else None
    except StoreError as error:
        return str(error)


def _state(backend: Backend, location: Location) -> State:
    if location.kind not in BLOCK_KINDS or backend.exists(location.key("summary.json")):
        return "complete"
    return "half-removed" if backend.exists(location.key(REMOVAL)) else "unfinished"


def _by_source(
    manifests: Mapping[Location, dict[str, Any] | str | None],
) -> dict[object, list[Location]]:
    """Listings by what they list. An index is found again through them, no image read."""
    found: dict[object, list[Location]] = {}
    for location, manifest in manifests.items():
        if location.kind == "listings" and isinstance(manifest, dict):
            found.setdefault(manifest["source_spec"], []).append(location)
    return found


def _with_digests(members: dict[Location, Member]) -> dict[Location, Member]:
    """The members, with the digests of a listing as its companions."""
    digests: dict[Location, set[Location]] = {}
    for member in members.values():
        for source in member.sources if member.location.kind == "digests" else ():
            digests.setdefault(source, set()).add(member.location)
    for listing, found in digests.items():
        members[listing] = replace(members[listing], companions=frozenset(found))
    return members


def remove(store: Store, member: Member) -> None:
    """Remove a member; killed at any point, no reader takes what is left for a whole element.

    Its children have to be gone before. Raises StoreError; run again it goes on.
    """
    backend, location = store.backend, member.location
    if location.kind in BLOCK_KINDS and member.state != "leftover":
        backend.replace(location.key(REMOVAL), canonical_json({"removal": location.folder}) + b"\n")
    keys = [*backend.keys(location.folder), *backend.partials(location.folder)]
    with ThreadPoolExecutor(DELETES_AT_ONCE) as pool:
        for group in _groups(location, keys):
            list(pool.map(backend.delete, group))
    backend.prune(location.folder)


def _groups(location: Location, keys: Iterable[str]) -> Iterator[list[str]]:
    """Keys in the order in which they go: each group is gone before the next is touched.

    Without its summary an element is not finalised, without commits nothing of it is real, and
    without its manifest it cannot be seen; only then do values go.
    """
    groups: list[list[str]] = [[] for _ in range(5)]
    for key in keys:
        groups[_rank(key.removeprefix(f"{location.folder}/"))].append(key)
    return (group for group in groups if group)


def _rank(name: str) -> int:
    if name.startswith("commits/"):
        return 1
    return {"summary.json": 0, "manifest.json": 2, REMOVAL: 4}.get(name, 3)
