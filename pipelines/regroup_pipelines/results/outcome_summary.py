"""The summary of features: how many samples there are, failed, and were classified correctly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.results.blocks import tables

if TYPE_CHECKING:
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.element import BlockElement


def outcome_summary(element: BlockElement) -> JsonObject:
    """Count the samples of features, those that failed, and those that softmax gets right."""
    counts = {"samples": 0, "failed": 0, "softmax_correct": 0}
    for _, table in tables(element, ["status", "label", "prediction"]):
        ok = table["status"].to_numpy() == "ok"
        correct = table["label"].to_numpy() == table["prediction"].to_numpy()
        counts["samples"] += len(ok)
        counts["failed"] += int((~ok).sum())
        counts["softmax_correct"] += int((ok & correct).sum())
    return counts
