"""Attack summaries: counts, distances and costs, from the stored columns and commit records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from regroup_pipelines.results.attack_warnings import gradients_line
from regroup_pipelines.results.counts import unreadable_summary
from regroup_pipelines.results.records import AttackSummary
from regroup_store.errors import DamagedError
from regroup_store.kinds.adversarials import FLAGS, LATER

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.element import BlockElement

_ALWAYS = ["status", "success", "linf", "l2", "queries"]
# Columns that elements of earlier releases lack.
_LATER = ["success_8bit", "claimed", "backward_passes", *LATER]


def summarise_attack(element: BlockElement) -> JsonObject:
    """Summarise the columns of an element; the result does not depend on how it was computed.

    Memory: 80 bytes per sample.

    Returns:
        Plain JSON: `attempted`, `failed`; `success` (#S), `success_8bit` (after rounding to 8
        bits), `claimed_not_verified` (reported by the kernel, refuted by the stored image); mean
        and median `l2` and `linf` over S; totals of `queries` and `backward_passes` with their
        means and medians over the attempted samples; how many samples met which gradients; and
        AutoAttack's remarks. None: unknown, or over no samples.
    """
    values = _values(element)
    attempted = values["status"] == "ok"
    success = attempted & values["success"].astype(bool)
    summary: JsonObject = {
        "attempted": int(attempted.sum()),
        "failed": int((~attempted).sum()),
        "success": int(success.sum()),
        "success_8bit": _count(values, "success_8bit", attempted),
        "claimed_not_verified": _count(values, "claimed", attempted & ~success),
    }
    for name in ("l2", "linf"):
        summary |= _middle(name, values[name][success])
    for name in ("queries", "backward_passes"):
        known = values.get(name, np.zeros(0))
        summary[name] = int(known.sum()) if name in values else None
        summary |= _middle(name, known[attempted] if name in values else known)
    return summary | (_gradients(values) if "gradients" in values else {})


def _gradients(values: dict[str, NDArray[Any]]) -> JsonObject:
    """Count samples by their gradients, failed ones too: a gradient may be why they failed."""
    zero, infinite = (values[name] > 0 for name in ("zero_gradients", "not_finite_gradients"))
    counts = {name: int((values["flags"] >> bit & 1).sum()) for bit, name in enumerate(FLAGS)}
    return {
        "gradient_samples": int((values["gradients"] > 0).sum()),
        "zero_gradient_samples": int(zero.sum()),
        "not_finite_gradient_samples": int(infinite.sum()),
        "bad_gradient_samples": int((zero | infinite).sum()),
        "flags": {name: count for name, count in counts.items() if count},
    }


def attack_summary(element: BlockElement) -> AttackSummary:
    """Return the element's stored summary, with the seconds per sample from its commit records."""
    seconds, halved = _middle("seconds", _seconds(element)), _halved(element)
    return stored_summary(element).model_copy(update={**seconds, **halved})


def stored_summary(element: BlockElement) -> AttackSummary:
    """Return the element's stored summary, without what its commit records say.

    Raises:
        DamagedError: it does not hold what it should.
    """
    stored = element.summary() or {}
    if "attempted" not in stored:  # written by another release
        stored = {**stored, **summarise_attack(element)}
    try:
        return AttackSummary.model_validate(stored)
    except ValidationError as error:
        raise unreadable_summary(element, error) from error


def _values(element: BlockElement) -> dict[str, NDArray[Any]]:
    """Read the columns of all blocks, by name."""
    known = element.column_names
    wanted = [*_ALWAYS, *(name for name in _LATER if name in known)]
    parts = [_arrays(element.read_table(b, wanted)) for b in range(element.plan.blocks)]
    return {name: np.concatenate([part[name] for part in parts]) for name in wanted}


def _arrays(table: pa.Table) -> dict[str, NDArray[Any]]:
    """Return the columns as arrays; an unknown success counts as False."""
    flags = ("success", "success_8bit", "claimed")
    return {
        name: (table[name].fill_null(False) if name in flags else table[name]).to_numpy()
        for name in table.column_names
    }


def _count(values: dict[str, NDArray[Any]], name: str, among: NDArray[np.bool_]) -> int | None:
    return int((values[name].astype(bool) & among).sum()) if name in values else None


def _middle(name: str, values: NDArray[Any]) -> dict[str, float | None]:
    if not len(values):
        return {f"mean_{name}": None, f"median_{name}": None}
    exact = values.astype(np.float64)
    return {f"mean_{name}": float(exact.mean()), f"median_{name}": float(np.median(exact))}


def _reports(element: BlockElement) -> Iterator[tuple[int, Any]]:
    """Yield every block that is not an accepted gap, with the report in its commit record."""
    for block in sorted(set(range(element.plan.blocks)) - set(element.gaps)):
        yield block, element.commit(block).report


def _seconds(element: BlockElement) -> NDArray[np.float64]:
    """Return the seconds of each attempted sample; empty where a block does not record them."""
    parts = []
    for block, report in _reports(element):
        if "sample_seconds" not in report:
            return np.zeros(0)
        attempted = element.read_table(block, ["status"])["status"].to_numpy() == "ok"
        seconds = report["sample_seconds"]
        numbers = isinstance(seconds, list) and all(type(each) in (int, float) for each in seconds)
        if not numbers or len(seconds) != len(attempted):
            raise DamagedError(f"the commit of block {block} of {element.ref} has no such seconds")
        parts.append(np.array(seconds, np.float64)[attempted])
    return np.concatenate(parts)


def _halved(element: BlockElement) -> dict[str, int]:
    rows = [report["halved_rows"] for _, report in _reports(element) if "halved_rows" in report]
    return {"halved_rows": min(rows)} if rows else {}


def summary_lines(s: AttackSummary) -> list[str]:
    """Format the summary in four lines."""
    return [
        f"attempted {s.attempted}, failed {s.failed}; successful #S {s.success}, rounded to 8 bits "
        f"{_known(s.success_8bit)}; claimed but not verified {_known(s.claimed_not_verified)}",
        f"over S, mean and median: L2 {_pair(s.mean_l2, s.median_l2)}, "
        f"L-infinity {_pair(s.mean_linf, s.median_linf)}",
        f"per sample, mean and median: {_pair(s.mean_queries, s.median_queries)} queries, "
        f"{_pair(s.mean_backward_passes, s.median_backward_passes)} backward passes, "
        f"{_pair(s.mean_seconds, s.median_seconds)} s",
        gradients_line(s),
    ]


def _known(value: int | None) -> str:
    return "?" if value is None else str(value)


def _pair(mean: float | None, median: float | None) -> str:
    return " and ".join("?" if each is None else f"{each:.4g}" for each in (mean, median))
