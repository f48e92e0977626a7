"""The table of attacks: what is measured, what was not run, and what is of nothing."""

from __future__ import annotations

from regroup_pipelines.render.attack_table import (
    ATTACK_HEADS,
    GRADIENTS_HEAD,
    attack_cells,
    attacks_table,
)
from regroup_pipelines.results.base import MEASURES, Accuracies, Accuracy
from regroup_pipelines.results.records import (
    AttackedImages,
    AttackNotRun,
    AttackSummary,
    ChosenK,
    CleanImages,
    EvaluationResults,
    ImagesNotRun,
    MeasuredImages,
    Range,
    StudyResults,
)
from regroup_pipelines.schema.attacks import Attack
from regroup_pipelines.schema.study import DeclaredBank, Model, Study


def all_of(correct: int, total: int) -> Accuracies:
    """The same share by every measure."""
    share = Accuracy(correct=correct, total=total)
    return Accuracies(**dict.fromkeys(MEASURES, share))


SUMMARY = AttackSummary(
    attempted=8, failed=1, success=6, success_8bit=5, claimed_not_verified=0, median_l2=0.125,
    median_linf=4 / 255, mean_queries=20.5, median_queries=20.0, mean_backward_passes=18.0,
    mean_seconds=0.25,
)  # fmt: skip
MADE = AttackedImages(
    images="deepfool", dataset="val", title="DeepFool, protocol minimal", adversarials="val-1",
    summary=SUMMARY,
)  # fmt: skip
WHY = "the study skips it"
SKIPPED = AttackNotRun(images="cadv", dataset="val", title="cAdv, protocol minimal", reason=WHY)
CLEAN = MeasuredImages(
    images="clean", attempted=9, failed=0, success=None, k=5, signs="both", over_all=all_of(9, 9)
)
MEASURED = MeasuredImages(
    images="deepfool", attempted=8, failed=1, success=6, k=5, signs="both",
    over_all=all_of(5, 8), over_success=all_of(3, 6),
)  # fmt: skip
EVALUATION = EvaluationResults(
    taps="preactivation", bank="four", bank_ref="four-1", votes={},
    samples_per_class=Range(fewest=4, most=4), k=5,
    rule=ChosenK(k=5, count=5, threshold=0.75, reached=True),
    accuracy=(CLEAN, MEASURED, ImagesNotRun(images="cadv", reason=WHY)),
    accuracy_against_k=(), tap_accuracy=(),
)  # fmt: skip
RESULTS = StudyResults(
    study="small",
    settings=Study(
        name="small", store="runs", model=Model(name="tiny"), datasets={"val": "digits"},
        banks={"four": DeclaredBank(per_class=4)},
        attacks={"deepfool": Attack(attack="deepfool"), "cadv": Attack(attack="cadv", skip=True)},
    ),
    images=(CleanImages(images="clean", dataset="val", index="val-1"), MADE, SKIPPED),
    evaluations=(EVALUATION,),
)  # fmt: skip


def texts_of(attack: AttackedImages, measured: MeasuredImages) -> dict[str, str]:
    cells = attack_cells(attack, measured)
    return dict(zip(ATTACK_HEADS, [cell.text for cell in cells], strict=True))


def test_cells_are_what_the_heads_say() -> None:
    cells = texts_of(MADE, MEASURED)
    assert cells["success"] == "75.0 %"
    assert (cells["#S"], cells["#S, 8 bits"]) == ("6", "5")
    assert (cells["median L2, S"], cells["median L-infinity, S"]) == ("0.125", "4/255")
    assert (cells["queries"], cells["backward passes"], cells["seconds"]) == ("20.5", "18", "0.25")
    assert cells["REGroup, S"].startswith("50.0 %")
    assert cells["REGroup, all"].startswith("62.5 %")


def test_cells_sort_by_their_numbers() -> None:
    cells = dict(zip(ATTACK_HEADS, attack_cells(MADE, MEASURED), strict=True))
    assert (cells["success"].sort, cells["median L-infinity, S"].sort) == (0.75, 4 / 255)
    assert (cells["REGroup, S"].sort, cells["queries"].sort) == (0.5, 20.5)


def test_an_attack_without_success_has_no_distance() -> None:
    nothing = {"success": 0, "median_l2": None, "median_linf": None}
    none = MADE.model_copy(update={"summary": SUMMARY.model_copy(update=nothing)})
    measured = MEASURED.model_copy(update={"over_success": all_of(0, 0)})
    cells = texts_of(none, measured)
    assert cells["median L2, S"] == cells["median L-infinity, S"] == cells["REGroup, S"] == "-"


def test_what_was_not_run_says_so_and_has_no_number() -> None:
    cells = attack_cells(SKIPPED, None)[1:]
    assert [cell.text for cell in cells] == ["not run"] * (len(ATTACK_HEADS) - 1)
    assert {cell.sort for cell in cells} == {None}
    measured, skipped = attacks_table(RESULTS, EVALUATION).download
    assert (measured["state"], skipped["state"]) == ("measured", "not run")
    assert (measured["regroup_S_correct"], measured["median_queries"]) == (3, 20.0)
    assert {skipped[key] for key in ("success", "median_l2", "regroup_S_correct")} == {""}
    assert measured.keys() == skipped.keys()


def test_only_attacks_are_rows() -> None:
    table = attacks_table(RESULTS, EVALUATION)
    assert [row[0].text for row in table.rows] == ["deepfool", "cadv"]
    assert [row["images"] for row in table.download] == ["deepfool", "cadv"]
    assert [row.kind for row in RESULTS.attacks] == ["attack", "not run"]


def test_gradients_have_a_column_where_they_were_measured() -> None:
    seen = {
        "gradient_samples": 8, "zero_gradient_samples": 4, "not_finite_gradient_samples": 1,
        "bad_gradient_samples": 5,
    }  # fmt: skip
    measured = MADE.model_copy(update={"summary": SUMMARY.model_copy(update=seen)})
    without = {**seen, "gradient_samples": 0, "bad_gradient_samples": 0}
    none = MADE.model_copy(update={"summary": SUMMARY.model_copy(update=without)})
    images = (RESULTS.images[0], measured, none, MADE, SKIPPED)
    table = attacks_table(RESULTS.model_copy(update={"images": images}), EVALUATION)
    assert table.heads[-1] == GRADIENTS_HEAD
    found = [row[-1].text for row in table.rows]
    assert found == ["5 of 8", "-", "gradients not measured", "not run"]
    assert [row["zero_gradient_samples"] for row in table.download] == [4, 4, "", ""]
    assert "deepfool: the input gradient was zero or not finite for 5 of 8" in table.note


def test_a_table_of_older_elements_is_as_it_was() -> None:
    table = attacks_table(RESULTS, EVALUATION)
    assert table.heads == ATTACK_HEADS
    assert not any("gradient" in name for row in table.download for name in row)
