"""The table of attacks: what is measured, what was not run, and what is of nothing."""

from __future__ import annotations

from typing import Any

from regroup_pipelines.render.attack_table import HEADS, attack_cells, attack_rows, attacks_of


def share(correct: int, total: int) -> dict[str, Any]:
    accuracy = correct / total if total else None
    return {"correct": correct, "total": total, "accuracy": accuracy, "interval95": [0.0, 1.0]}


MEASURED: dict[str, Any] = {
    "images": "deepfool", "title": "DeepFool, protocol minimal", "attempted": 8, "failed": 1,
    "success": 6, "success_8bit": 5, "claimed_not_verified": 0, "median_l2": 0.125,
    "median_linf": 4 / 255, "mean_queries": 20.5, "median_queries": 20.0,
    "mean_backward_passes": 18.0, "mean_seconds": 0.25,
}  # fmt: skip
SKIPPED = {"images": "cadv", "title": "cAdv, protocol minimal", "not_run": "the study skips it"}
RESULTS: dict[str, Any] = {
    "images": [{"images": "clean"}, MEASURED, SKIPPED],
    "settings": {"scoring": {"signs": "both"}},
}
EVALUATION: dict[str, Any] = {
    "k": 5,
    "accuracy": [
        {"images": "clean"},
        {"images": "deepfool", "regroup_top1_S": share(3, 6), "regroup_top1_all": share(5, 8)},
        {"images": "cadv", "not_run": "the study skips it"},
    ],
}


def test_cells_are_what_the_heads_say() -> None:
    cells = dict(zip(HEADS, attack_cells(MEASURED, EVALUATION["accuracy"][1]), strict=True))
    assert cells["success"] == "75.0 %"
    assert (cells["#S"], cells["#S, 8 bits"]) == ("6", "5")
    assert (cells["median L2, S"], cells["median L-infinity, S"]) == ("0.125", "4/255")
    assert (cells["queries"], cells["backward passes"], cells["seconds"]) == ("20.5", "18", "0.25")
    assert cells["REGroup, S"].startswith("50.0 %")
    assert cells["REGroup, all"].startswith("62.5 %")


def test_an_attack_without_success_has_no_distance() -> None:
    none = MEASURED | {"success": 0, "median_l2": None, "median_linf": None}
    accuracy = {"images": "deepfool", "regroup_top1_S": share(0, 0)}
    cells = dict(zip(HEADS, attack_cells(none, accuracy), strict=True))
    assert cells["median L2, S"] == cells["median L-infinity, S"] == cells["REGroup, S"] == "-"


def test_what_was_not_run_says_so_and_has_no_number() -> None:
    assert attack_cells(SKIPPED, EVALUATION["accuracy"][2])[1:] == ["not run"] * (len(HEADS) - 1)
    measured, skipped = attack_rows(RESULTS, EVALUATION)
    assert (measured["state"], skipped["state"]) == ("measured", "not run")
    assert (measured["regroup_S_correct"], measured["median_queries"]) == (3, 20.0)
    assert {skipped[key] for key in ("success", "median_l2", "regroup_S_correct")} == {""}
    assert measured.keys() == skipped.keys()


def test_only_attacks_are_rows() -> None:
    assert [row["images"] for row in attacks_of(RESULTS)] == ["deepfool", "cadv"]
