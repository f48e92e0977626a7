"""Summaries counted again: what a summary says must follow from the blocks it is of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from regroup_pipelines.results.attack_summary import summarise_attack
from regroup_pipelines.results.counts import summarise
from regroup_pipelines.results.outcome_summary import outcome_summary
from regroup_store.errors import DamagedError, GapError
from regroup_store.format.element import BlockElement
from regroup_store.maintenance.findings import Finding, reading_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.manifests import Location
    from regroup_store.format.store import Store

SUMMARY = "summary.json"


def _rows(element: BlockElement) -> JsonObject:
    return {"rows": element.plan.rows}


_COUNTS: dict[str, Callable[[BlockElement], JsonObject]] = {
    "digests": _rows,
    "features": outcome_summary,
    "adversarials": summarise_attack,
    "votes": summarise,
}


def check_summary(store: Store, location: Location) -> Iterator[Finding]:
    """Compare the summary of an element whose blocks are intact with its blocks."""
    if location.kind not in _COUNTS or not store.backend.exists(location.key(SUMMARY)):
        return
    error = reading_error(_require_counts, store, location)
    # Without the index of its missing blocks nothing can be counted.
    if error and not isinstance(error, GapError):
        yield Finding.from_error(error, "summary", location, SUMMARY)


def _require_counts(store: Store, location: Location) -> None:
    element = BlockElement.open(store, location.kind, location.ref)
    stored = element.summary() or {}
    element.accept_gaps(element.listed_gaps)
    try:
        counted = _COUNTS[location.kind](element)
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedError(f"{location.folder} cannot be counted: {error}") from error
    for name in counted.keys() & stored.keys():
        if not same_counts(counted[name], stored[name]):
            raise DamagedError(
                f"{location.key(SUMMARY)} states {name} {_short(stored[name])}, but its blocks "
                f"hold {_short(counted[name])}: run `regroup repair`"
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def same_counts(one: object, other: object) -> bool:
    """Whether two values of plain JSON are the same, floats to nine digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(same_counts(one[name], other[name]) for name in one.keys() & other.keys())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_counts, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return one == other
