"""Conversion of results of schema version 1, which carry no version, to the current schema.

Version 1 distinguished kinds of rows by their keys, and named the accuracy of a measure over a
group `<measure>_<group>`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.results.base import MEASURES

if TYPE_CHECKING:
    from regroup_pipelines.json_types import JsonObject


def from_version_1(old: JsonObject) -> JsonObject:
    """Convert results to schema version 2.

    Raises:
        LookupError: a key is missing.
    """
    return {
        "schema_version": 2,
        "study": old["study"],
        "settings": _settings(old["settings"]),
        "subsets": old.get("subsets", []),
        "images": [_images(row) for row in old["images"]],
        "evaluations": [_evaluation(row) for row in old["evaluations"]],
        **{key: old[key] for key in ("forward_passes", "seconds", "steps") if key in old},
    }


def _settings(old: JsonObject) -> JsonObject:
    """Convert the settings: banks name their seed as study files do."""
    banks = {
        name: {("seed" if key == "bank_seed" else key): value for key, value in bank.items()}
        for name, bank in old["banks"].items()
    }
    return {**old, "banks": banks}


_NAMING = ("images", "dataset", "title", "subset")


def _images(old: JsonObject) -> JsonObject:
    known: JsonObject = {key: old[key] for key in _NAMING if key in old}
    if "not_run" in old:
        return {"kind": "not run", **known, "reason": old["not_run"]}
    if "title" not in old:
        return {"kind": "clean", **known, "index": old["index"]}
    summary = {key: value for key, value in old.items() if key not in {*known, "adversarials"}}
    return {"kind": "attack", **known, "adversarials": old["adversarials"], "summary": summary}


def _evaluation(old: JsonObject) -> JsonObject:
    same = ("taps", "bank", "bank_ref", "votes", "k", "rule")
    new = {
        **{key: old[key] for key in same},
        "samples_per_class": old["samples_a_class"],
        "accuracy": [_accuracy(row) for row in old["accuracy"]],
        "accuracy_against_k": [_split(row, ("k", "signs")) for row in old["accuracy_against_k"]],
        "tap_accuracy": [_split(row, ("position", "tap", "votes")) for row in old["tap_accuracy"]],
    }
    if "inference_time" in old:
        new["inference_time"] = [_timing(row) for row in old["inference_time"]]
    return new


def _accuracy(old: JsonObject) -> JsonObject:
    if "not_run" in old:
        return {"kind": "not run", "images": old["images"], "reason": old["not_run"] or ""}
    same = ("images", "attempted", "failed", "success", "k", "signs")
    new = {"kind": "measured", **{key: old[key] for key in same}, "over_all": _cells(old, "all")}
    if old["success"] is not None:
        new["over_success"] = _cells(old, "S")
    if "whole" in old:
        new["whole"] = {**old["whole"], "clean": _cells(old["whole"]["clean"], "all")}
    return new


def _cells(old: JsonObject, group: str) -> JsonObject:
    return {measure: old[f"{measure}_{group}"] for measure in MEASURES}


def _split(old: JsonObject, heads: tuple[str, ...]) -> JsonObject:
    """Separate a row's accuracies from its other keys."""
    accuracy = {key: cell for key, cell in old.items() if key not in heads}
    return {**{key: old[key] for key in heads}, "accuracy": accuracy}


def _timing(old: JsonObject) -> JsonObject:
    if "not_run" in old:
        return {"kind": "not run", "device": old["device"], "reason": old["not_run"]}
    return {"kind": "measured", **old}
