"""Finding elements of any kind by what a user types: name, name-fingerprint or fingerprint."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from regroup_store.errors import StoreUsageError
from regroup_store.format.manifests import (
    KINDS,
    Location,
    known_locations,
    matching_locations,
    require_kept,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regroup_store.format.store import Store

SUGGESTED = 5


def all_elements(store: Store) -> list[Location]:
    """List the elements, in the order of KINDS, with those that have lost their manifest."""
    return [location for kind in KINDS for location in known_locations(store.backend, kind)]


def find_elements(store: Store, ref: str, kind: str | None = None) -> list[Location]:
    """Find every element that `ref` names.

    Args:
        store: where to look.
        ref: a name, `<name>-<fp>` or the start of a fingerprint, optionally after `<kind>/`.
        kind: the only kind to look for, unless `ref` states one.

    Raises:
        StoreUsageError: it names nothing; the message suggests the nearest names.
    """
    stated, rest = split_ref(ref)
    kind = stated or kind
    known = [each for each in all_elements(store) if kind in (None, each.kind)]
    found = matching_locations(known, rest)
    if not found:
        raise StoreUsageError(
            f"there is no {kind or 'element'} {rest!r} in the store {store.uri}: "
            f"{_nearest(known, rest)}"
        )
    return found


def find_element(store: Store, ref: str, kind: str | None = None) -> Location:
    """Find the one element that `ref` names, read as in `find_elements`.

    Raises:
        StoreUsageError: it names nothing, or several elements, which the message lists.
        DamagedError: it has lost its manifest.
    """
    found = find_elements(store, ref, kind)
    if len(found) > 1:
        names = ", ".join(location.folder for location in found)
        raise StoreUsageError(
            f"{ref!r} names {len(found)} elements in the store {store.uri}: say which of {names}"
        )
    require_kept(store.backend, found[0])
    return found[0]


def split_ref(ref: str) -> tuple[str | None, str]:
    """Split a ref into the kind that it states, or None, and the rest.

    Raises:
        StoreUsageError: what it states is not a kind.
    """
    kind, slash, rest = ref.rpartition("/")
    if slash and kind not in KINDS:
        near = get_close_matches(kind, KINDS, 1) or KINDS
        raise StoreUsageError(
            f"{ref!r} names no element: {kind!r} is not a kind of element: did you mean "
            f"{' or '.join(near)}?"
        )
    return kind or None, rest


def _nearest(known: Sequence[Location], ref: str) -> str:
    names = {location.name for location in known}
    refs = {location.ref: location.folder for location in known}
    near = get_close_matches(ref, [*names, *refs], 3, 0.5)
    if near:
        return f"did you mean {' or '.join(refs.get(name, name) for name in near)}?"
    if not known:
        return "it holds none"
    shown = ", ".join(location.folder for location in known[:SUGGESTED])
    return f"it holds {shown}{', ...' if len(known) > SUGGESTED else ''} (see `regroup ls`)"
