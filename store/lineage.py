"""Which elements come from which: the fingerprints that an element's inputs name."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from store.errors import StoreError
from store.fingerprint import short
from store.manifests import KINDS, Location, find, locations, read_manifest
from store.stores import Store


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


def of_candidates(store: Store, kind: str, inputs: Mapping[str, Any]) -> bool:
    """Return whether an index, or features, are of images tried for a bank and not of a split."""
    if kind == "indexes":
        return "candidates" in inputs.get("selection", {})
    return kind == "features" and any(
        of_candidates(store, parent, _index_inputs(store, full))
        for parent, full in parents(kind, inputs)
    )


def _index_inputs(store: Store, index: str) -> Mapping[str, Any]:
    """The inputs of an index; {} for one that is gone."""
    location = find(store.backend, "indexes", index)
    inputs: Any = read_manifest(store.backend, location)["inputs"] if location else {}
    found: Mapping[str, Any] = inputs
    return found


def features_within(store: Store, index: str, like: Mapping[str, Any]) -> list[str]:
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
                found.append((images == "whole", location.ref[-16:], location.ref))
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
    tried = images.get("parent") == index and of_candidates(store, "indexes", images)
    return "candidates" if tried else None


def derived(store: Store, location: Location) -> list[Location]:
    """Return the elements that come from this one, directly or not, in the order of KINDS.

    One whose manifest cannot be read is left out: what it comes from is not known.
    """
    children: dict[str, list[Location]] = {}
    every = [each for kind in KINDS for each in locations(store.backend, kind)]
    for each in every:
        for parent in _parents(store, each):
            children.setdefault(short(parent), []).append(each)
    found = set(_reached(children, location))
    return [each for each in every if each in found]


def _reached(children: Mapping[str, list[Location]], start: Location) -> Iterator[Location]:
    # No element can come from itself: its fingerprint is a hash of its parents'.
    for child in children.get(start.ref[-16:], []):
        yield child
        yield from _reached(children, child)


def _parents(store: Store, location: Location) -> list[str]:
    try:
        inputs: Any = read_manifest(store.backend, location)["inputs"]
    except (StoreError, FileNotFoundError):
        return []
    return [full for _, full in parents(location.kind, inputs)]
