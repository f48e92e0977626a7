"""What came of an attack: counts, distances and costs, from the stored columns and commits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

    from regroup_store.format.element import BlockElement

_ALWAYS = ["status", "success", "linf", "l2", "queries"]
# What elements of earlier releases do not have.
_LATER = ["success_8bit", "claimed", "backward_passes"]


def summarise_attack(element: BlockElement) -> dict[str, Any]:
    """Plain JSON: what follows from the element's columns, the same whoever made it and how.

    `attempted`, `failed`; `success` (#S), `success_8bit` (after rounding to 8 bits),
    `claimed_not_verified` (what the kernel called a success and the stored image is not); mean and
    median `l2` and `linf` over #S; `queries` and `backward_passes` in all, and their means and
    medians over the attempted samples. None: not known, or of nothing. Memory: 40 bytes a sample.
    """
    values = _values(element)
    attempted = values["status"] == "ok"
    success = attempted & values["success"].astype(bool)
    summary: dict[str, Any] = {
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
    return summary


def tell_attack(element: BlockElement) -> dict[str, Any]:
    """The element's summary, and what the attempts at its blocks say that they took.

    Mean and median `seconds` of the attempted samples; `halved_rows`, images at once, where a GPU's
    memory did not take as many as it should.
    """
    return {
        **(element.summary() or {}),
        **_middle("seconds", _seconds(element)),
        **_halved(element),
    }


def _values(element: BlockElement) -> dict[str, NDArray[Any]]:
    """Columns of all blocks that the element has, by name."""
    columns: Any = element.manifest["columns"]
    known = {column["name"] for column in columns}
    wanted = [*_ALWAYS, *(name for name in _LATER if name in known)]
    parts = [_arrays(element.read_table(b, wanted)) for b in range(element.plan.blocks)]
    return {name: np.concatenate([part[name] for part in parts]) for name in wanted}


def _arrays(table: pa.Table) -> dict[str, NDArray[Any]]:
    """Columns as arrays; a success that is not known is none."""
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
    """Every block that is no known gap, and the account that its attempt gave."""
    for block in sorted(set(range(element.plan.blocks)) - set(element.gaps)):
        yield block, element.commit(block).report


def _seconds(element: BlockElement) -> NDArray[np.float64]:
    """Seconds of each attempted sample; nothing at all where a block does not tell."""
    parts = []
    for block, report in _reports(element):
        if "sample_seconds" not in report:
            return np.zeros(0)
        attempted = element.read_table(block, ["status"])["status"].to_numpy() == "ok"
        parts.append(np.array(report["sample_seconds"], np.float64)[attempted])
    return np.concatenate(parts)


def _halved(element: BlockElement) -> dict[str, int]:
    rows = [report["halved_rows"] for _, report in _reports(element) if "halved_rows" in report]
    return {"halved_rows": min(rows)} if rows else {}


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The summary for people."""
    s = {name: "?" if value is None else value for name, value in summary.items()}
    return [
        f"attempted {s['attempted']}, failed {s['failed']}; successful #S {s['success']}, rounded "
        f"to 8 bits {s['success_8bit']}; claimed but not verified {s['claimed_not_verified']}",
        f"over S, mean and median: L2 {_pair(s, 'l2')}, L-infinity {_pair(s, 'linf')}",
        f"a sample, mean and median: {_pair(s, 'queries')} queries, "
        f"{_pair(s, 'backward_passes')} backward passes, {_pair(s, 'seconds')} s",
    ]


def _pair(summary: dict[str, Any], name: str) -> str:
    found = [summary.get(f"{middle}_{name}", "?") for middle in ("mean", "median")]
    return " and ".join(each if each == "?" else f"{each:.4g}" for each in found)
