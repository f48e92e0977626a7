"""Which elements come from which: the fingerprints that an element's inputs name."""

from collections.abc import Iterator, Mapping
from typing import Any

from store.errors import StoreError
from store.fingerprint import short
from store.manifests import KINDS, Location, locations, read_manifest
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
        "banks": [("features", inputs.get("features"))],
        "votes": [("features", inputs.get("features")), ("banks", inputs.get("bank"))],
    }
    return [(parent, full) for parent, full in named[kind] if isinstance(full, str)]


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
