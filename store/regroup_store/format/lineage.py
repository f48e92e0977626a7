"""Which elements come from which: the fingerprints that an element's inputs name."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regroup_store.errors import StoreError
from regroup_store.format.fingerprint import short_fingerprint
from regroup_store.format.manifests import KINDS, Location, find_location, locations, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from regroup_store.format.store import Store


def parents(kind: str, inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (kind, fingerprint) of every element that `inputs` say the content comes from."""
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
    return [(parent, full) for parent, full in named[kind] if isinstance(full, str)]


def _several(named: object) -> list[object]:
    """A bank names one features element, or a list of those that its candidates are in."""
    return named if isinstance(named, list) else [named]


def holds_candidates(store: Store, kind: str, inputs: Mapping[str, Any]) -> bool:
    """Return whether an index, or features, are of images tried for a bank and not of a split."""
    if kind == "indexes":
        return "candidates" in inputs.get("selection", {})
    return kind == "features" and any(
        holds_candidates(store, parent, _index_inputs(store, full))
        for parent, full in parents(kind, inputs)
    )


def _index_inputs(store: Store, index: str) -> Mapping[str, Any]:
    """The inputs of an index; {} for one that is gone."""
    location = find_location(store.backend, "indexes", index)
    inputs: Any = read_manifest(store.backend, location)["inputs"] if location else {}
    found: Mapping[str, Any] = inputs
    return found


def features_of_index(store: Store, index: str, like: Mapping[str, Any]) -> list[str]:
    """Return the refs of finalised features of an index (its fingerprint) and of candidates of it.

    `like`: their inputs but for `source`. Those of candidates come first, by fingerprint, and the
    whole index's last: what a bank was once made of stays what it is made of. One whose manifest
    cannot be read is left out.
    """
    found = []
    for location in locations(store.backend, "features"):
        with suppress(StoreError, FileNotFoundError):
            images = _images_within(store, index, location, like)
            if images and store.backend.exists(location.key("summary.json")):
                found.append((images == "whole", location.short_fingerprint, location.ref))
    return [ref for _, _, ref in sorted(found)]


def _images_within(
    store: Store, index: str, location: Location, like: Mapping[str, Any]
) -> str | None:
    """Which images of an index some features hold: "whole", "candidates", or None of them."""
    inputs: Any = read_manifest(store.backend, location)["inputs"]
    source = inputs["source"].get("index")
    if source is None or {**inputs, "source": None} != {**like, "source": None}:
        return None
    if source == index:
        return "whole"
    images = _index_inputs(store, source)
    tried = images.get("parent") == index and holds_candidates(store, "indexes", images)
    return "candidates" if tried else None


@dataclass(frozen=True)
class Relative:
    """An element in a family tree.

    `location`: None for one that is not in the store; `relatives`: what it comes from, or what
    comes from it, in their turn; `problem`: why these are not known, or None.
    """

    kind: str
    fingerprint: str
    location: Location | None
    relatives: tuple[Relative, ...] = ()
    problem: str | None = None


def ancestors(store: Store, location: Location) -> tuple[Relative, ...]:
    """Return what an element comes from, recursively; raises what `read_manifest` raises.

    An ancestor that is absent, or whose manifest cannot be read, is there without its own.
    """
    inputs: Any = read_manifest(store.backend, location)["inputs"]
    return tuple(_ancestor(store, kind, full) for kind, full in parents(location.kind, inputs))


def _ancestor(store: Store, kind: str, full: str) -> Relative:
    location = None
    try:
        location = find_location(store.backend, kind, full)
        above = ancestors(store, location) if location else ()
        problem = None if location else "not in this store"
    except (StoreError, FileNotFoundError) as error:
        above, problem = (), str(error)
    return Relative(kind, full, location, above, problem)


def descendants(store: Store, location: Location) -> tuple[Relative, ...]:
    """Return what comes from an element, recursively, in the order of KINDS.

    One whose manifest cannot be read is left out: what it comes from is not known.
    """
    children, fingerprints = _children(store)
    return _below(children, fingerprints, location)


def _below(
    children: Mapping[str, list[Location]], full: Mapping[Location, str], above: Location
) -> tuple[Relative, ...]:
    return tuple(
        Relative(child.kind, full[child], child, _below(children, full, child))
        for child in children.get(above.short_fingerprint, [])
    )


def derived(store: Store, location: Location) -> list[Location]:
    """Return the elements that come from this one, directly or not, in the order of KINDS.

    One whose manifest cannot be read is left out: what it comes from is not known.
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
    """Return what comes from each element (by its short fingerprint), and every fingerprint."""
    children: dict[str, list[Location]] = {}
    fingerprints = {}
    for each in (each for kind in KINDS for each in locations(store.backend, kind)):
        with suppress(StoreError, FileNotFoundError):
            manifest: Any = read_manifest(store.backend, each)
            fingerprints[each] = str(manifest["fingerprint"])
            for _, parent in parents(each.kind, manifest["inputs"]):
                children.setdefault(short_fingerprint(parent), []).append(each)
    return children, fingerprints
