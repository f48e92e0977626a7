"""Verification of everything stored against its checksums (docs/format.md, "Verifying").

Reads one block of one array at a time, and continues after every finding.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from regroup_store.backends.open import backend_for
from regroup_store.errors import (
    SchemaVersionError,
    StoreError,
    StoreUnavailableError,
    StoreUsageError,
)
from regroup_store.format.manifests import KINDS, Location, folders, matching_locations
from regroup_store.format.store import MARKER, Store, open_store, require_marker
from regroup_store.maintenance.element_checks import check_element
from regroup_store.maintenance.findings import (
    Finding,
    describe_error,
    level_of_error,
    merged,
    reading_error,
)
from regroup_store.maintenance.other_checks import check_others

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


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
    """Check the marker and the elements that `refs` name (default: all, and all else there is).

    Raises:
        StoreUsageError: a ref names nothing.
        StoreError: the store cannot be listed.
    """
    locations = select_locations(store, refs)
    yield from check_marker(store)
    yield from merged(each for place in locations for each in check_element(store, place))
    if not refs:
        yield from check_others(store)


def check_marker(store: Store) -> Iterator[Finding]:
    """Check store.json."""
    if error := reading_error(require_marker, store.backend):
        level, problem = level_of_error(error), describe_error(error, MARKER)
        # Another format, in the midst of our elements, is a damaged marker.
        if isinstance(error, StoreUsageError):
            level = "damaged"
        yield Finding(level, "marker", "", "", None, MARKER, problem)
