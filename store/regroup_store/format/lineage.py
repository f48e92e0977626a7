"""Lineage: which elements come from which, by the fingerprints that their inputs name."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regroup_store.errors import SchemaVersionError, StoreError
from regroup_store.format.fingerprint import short_fingerprint
from regroup_store.format.manifests import KINDS, Location, find_location, locations, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from regroup_store.format.store import Store


def parents(kind: str, inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List (kind, fingerprint) of every element that `inputs` name as an origin of the content."""
    source = inputs.get("source", {}) if kind == "features" else {}
    selection = inputs.get("selection", {}) if kind == "indexes" else {}
    named = {
        "indexes": [
            ("indexes", inputs.get("parent")),
            ("features", selection.get("correct_under")),
        ],
        "listings": [],
        "digests": [("listings", inputs.get("listing"))],
        "features": [
            ("indexes", source.get("index")),
            ("adversarials", source.get("adversarials")),
        ],
        "adversarials": [("indexes", inputs.get("index"))],
        "banks": [("features", each) for each in _several(inputs.get("features"))],
        "votes": [("features", inputs.get("features")), ("banks", inputs.get("bank"))],
    }
    return [
        (parent, fingerprint) for parent, fingerprint in named[kind] if isinstance(fingerprint, str)
    ]


def _several(named: object) -> list[object]:
    """A bank names one features element, or a list of those that hold its candidates."""
    return named if isinstance(named, list) else [named]


def holds_candidates(store: Store, kind: str, inputs: Mapping[str, Any]) -> bool:
    """Whether an index, or features, hold images tried for a bank instead of a split."""
    if kind == "indexes":
        return "candidates" in inputs.get("selection", {})
    return kind == "features" and any(
        holds_candidates(store, parent, _index_inputs(store, fingerprint))
        for parent, fingerprint in parents(kind, inputs)
    )


def _index_inputs(store: Store, index: str) -> Mapping[str, Any]:
    """Inputs of an index; empty for one that is gone."""
    location = find_location(store.backend, "indexes", index)
    inputs: Any = read_manifest(store.backend, location)["inputs"] if location else {}
    found: Mapping[str, Any] = inputs
    return found


def features_of_index(store: Store, index: str, like: Mapping[str, Any]) -> list[str]:
    """List the refs of finalised features of an index, or of bank candidates from it.

    Those of candidates come first, by fingerprint, and those of the complete index last, so that a
    bank keeps being built from the same features. Those of a later schema, which have other
    fingerprints, are left out.

    Args:
        store: where to look.
        index: fingerprint of the index.
        like: inputs of the features, except for `source`.

    Raises:
        StoreError: features cannot be read, so that it is unknown whether they are of the index.
    """
    found = []
    for location in locations(store.backend, "features"):
        with suppress(SchemaVersionError, FileNotFoundError):
            images = _images_within(store, index, location, like)
            if images and store.backend.exists(location.key("summary.json")):
                found.append((images == "all", location.short_fingerprint, location.ref))
    return [ref for _, _, ref in sorted(found)]


def _images_within(
    store: Store, index: str, location: Location, like: Mapping[str, Any]
) -> str | None:
    """Which images of an index these features hold: "all", "candidates", or None of them."""
    inputs: Any = read_manifest(store.backend, location)["inputs"]
    source = inputs["source"].get("index")
    if source is None or {**inputs, "source": None} != {**like, "source": None}:
        return None
    if source == index:
        return "all"
    images = _index_inputs(store, source)
    tried = images.get("parent") == index and holds_candidates(store, "indexes", images)
    return "candidates" if tried else None


@dataclass(frozen=True)
class Relative:
    """An element in a family tree.

    Attributes:
        kind: of the element.
        fingerprint: of the element, 64 hex characters.
        location: None where the element is not in the store.
        relatives: its own ancestors, or its own descendants.
        problem: why these are unknown, or None.
    """

    kind: str
    fingerprint: str
    location: Location | None
    relatives: tuple[Relative, ...] = ()
    problem: str | None = None


def ancestors(store: Store, location: Location) -> tuple[Relative, ...]:
    """Build the tree of what an element comes from; raises what `read_manifest` raises.

    An ancestor that is absent, or whose manifest cannot be read, has no relatives of its own.
    """
    inputs: Any = read_manifest(store.backend, location)["inputs"]
    return tuple(
        _ancestor(store, kind, fingerprint) for kind, fingerprint in parents(location.kind, inputs)
    )


def _ancestor(store: Store, kind: str, fingerprint: str) -> Relative:
    location = None
    try:
        location = find_location(store.backend, kind, fingerprint)
        above = ancestors(store, location) if location else ()
        problem = None if location else "not in this store"
    except (StoreError, FileNotFoundError) as error:
        above, problem = (), str(error)
    return Relative(kind, fingerprint, location, above, problem)


def descendants(store: Store, location: Location) -> tuple[Relative, ...]:
    """Build the tree of what comes from an element, in the order of KINDS.

    Elements with an unreadable manifest are left out: what they come from is unknown.
    """
    children, fingerprints = _children(store)
    return _below(children, fingerprints, location)


def _below(
    children: Mapping[str, list[Location]], fingerprints: Mapping[Location, str], above: Location
) -> tuple[Relative, ...]:
    return tuple(
        Relative(child.kind, fingerprints[child], child, _below(children, fingerprints, child))
        for child in children.get(above.short_fingerprint, [])
    )


def derived(store: Store, location: Location) -> list[Location]:
    """List the elements that come from this one, directly or not, in the order of KINDS.

    Elements with an unreadable manifest are left out: what they come from is unknown.
    """
    children, every = _children(store)
    found = set(_reached(children, location))
    return [each for each in every if each in found]


def _reached(children: Mapping[str, list[Location]], start: Location) -> Iterator[Location]:
    # No element can come from itself: its fingerprint is a hash of its parents'.
    for child in children.get(start.short_fingerprint, []):
        yield child
        yield from _reached(children, child)


def _children(store: Store) -> tuple[dict[str, list[Location]], dict[Location, str]]:
    """Children of each element by its short fingerprint, and the fingerprint of every element."""
    children: dict[str, list[Location]] = {}
    fingerprints = {}
    for each in (each for kind in KINDS for each in locations(store.backend, kind)):
        with suppress(StoreError, FileNotFoundError):
            manifest: Any = read_manifest(store.backend, each)
            fingerprints[each] = str(manifest["fingerprint"])
            for _, parent in parents(each.kind, manifest["inputs"]):
                children.setdefault(short_fingerprint(parent), []).append(each)
    return children, fingerprints
