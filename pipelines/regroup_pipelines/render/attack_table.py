"""The table of a study's attacks: success, perturbation size and cost, with REGroup's accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.render.study_tables import key_of
from regroup_pipelines.render.table import Cell, Table, accuracy_cell, text_cell
from regroup_pipelines.results.attack_warnings import NOT_MEASURED, attack_warnings
from regroup_pipelines.results.base import NOT_RUN
from regroup_pipelines.results.records import AttackedImages
from regroup_pipelines.results.whole_subset import whole_subset_notes

if TYPE_CHECKING:
    from regroup_pipelines.json_types import FlatRow
    from regroup_pipelines.results.records import (
        AttackNotRun,
        AttackSummary,
        EvaluationResults,
        MeasuredImages,
        StudyResults,
    )

ATTACK_HEADS = [
    "attack", "attempted", "#S", "success", "#S, 8 bits", "median L2, S", "median L-infinity, S",
    "queries", "backward passes", "seconds", "REGroup, S", "REGroup, all",
]  # fmt: skip
# Only where an attack of the table has measured its gradients: not in elements of before.
GRADIENTS_HEAD = "useless gradients"
GRADIENT_NUMBERS = ("gradient_samples", "zero_gradient_samples", "not_finite_gradient_samples")
NUMBERS = (
    "attempted", "failed", "success", "success_8bit", "claimed_not_verified", "median_l2",
    "median_linf", "mean_queries", "median_queries", "mean_backward_passes", "mean_seconds",
)  # fmt: skip


def attacks_table(results: StudyResults, evaluation: EvaluationResults) -> Table:
    """Return the table of attacks of one evaluation."""
    notes = [*whole_subset_notes(evaluation.accuracy), *_warnings(results)]
    cells = [attack_cells(row, evaluation.row(row.images)) for row in results.attacks]
    flat = [_download(row, results, evaluation) for row in results.attacks]
    heads = ATTACK_HEADS
    if any(
        s is not None and s.gradient_samples is not None for s in map(_summary, results.attacks)
    ):
        heads = [*heads, GRADIENTS_HEAD]
        cells = [[*c, _gradients(row)] for c, row in zip(cells, results.attacks, strict=True)]
        flat = [{**f, **_flat_gradients(r)} for f, r in zip(flat, results.attacks, strict=True)]
    return Table(
        f"{key_of(evaluation)}-attacks",
        f"Attacks, {evaluation.taps} taps, k = {evaluation.k}",
        heads,
        cells,
        flat,
        "Queries (forward passes), backward passes and seconds are means over the attempted "
        + " ".join(["samples; distances are medians over S, in pixel units of [0, 1].", *notes]),
    )


def _summary(row: AttackedImages | AttackNotRun) -> AttackSummary | None:
    return row.summary if isinstance(row, AttackedImages) else None


def _warnings(results: StudyResults) -> list[str]:
    """Return a sentence for each reason not to rely on an attack."""
    known = [(row.images, s) for row in results.attacks if (s := _summary(row)) is not None]
    return [f"{name}: {warning}." for name, s in known for warning in attack_warnings(s)]


def _gradients(row: AttackedImages | AttackNotRun) -> Cell:
    """Return how many samples, of those not yet fooled, had gradients that lead nowhere."""
    summary = _summary(row)
    if summary is None:
        return Cell(NOT_RUN)
    if summary.gradient_samples is None:
        return Cell(NOT_MEASURED)
    if not summary.gradient_samples:
        return Cell("-")
    bad, n = summary.bad_gradient_samples or 0, summary.gradient_samples
    return Cell(f"{bad} of {n}", bad / n)


def _flat_gradients(row: AttackedImages | AttackNotRun) -> FlatRow:
    summary = _summary(row)
    numbers = {} if summary is None else summary.plain()
    known = {name: numbers.get(name) for name in GRADIENT_NUMBERS}
    return {name: "" if value is None else value for name, value in known.items()}


def attack_cells(row: AttackedImages | AttackNotRun, measured: MeasuredImages | None) -> list[Cell]:
    """Return the cells of an attack: L2 in [0, 1], L-infinity in 255ths, costs as means."""
    if not isinstance(row, AttackedImages) or measured is None:
        return [text_cell(row.images), *[Cell(NOT_RUN)] * (len(ATTACK_HEADS) - 1)]
    s = row.summary
    costs = (s.mean_queries, s.mean_backward_passes, s.mean_seconds)
    return [
        text_cell(row.images),
        _number(s.attempted),
        _number(s.success),
        _share(s),
        _number(s.success_8bit),
        _number(s.median_l2),
        _in_255ths(s.median_linf),
        *map(_number, costs),
        accuracy_cell(measured.accuracy("S", "regroup_top1")),
        accuracy_cell(measured.accuracy("all", "regroup_top1")),
    ]


def _number(value: float | None) -> Cell:
    if value is None:
        return Cell("-")
    return Cell(f"{value:.4g}" if isinstance(value, float) else str(value), value)


def _share(summary: AttackSummary) -> Cell:
    if not summary.attempted:
        return Cell("-")
    share = summary.success / summary.attempted
    return Cell(f"{100 * share:.1f} %", share)


def _in_255ths(size: float | None) -> Cell:
    return Cell("-") if size is None else Cell(f"{255 * size:.3g}/255", size)


def _download(
    row: AttackedImages | AttackNotRun, results: StudyResults, evaluation: EvaluationResults
) -> FlatRow:
    measured = evaluation.row(row.images)
    ran = isinstance(row, AttackedImages) and measured is not None
    numbers = row.summary.plain() if isinstance(row, AttackedImages) else {}
    return {
        "images": row.images,
        "attack": row.title,
        "state": "measured" if ran else NOT_RUN,
        **{name: numbers.get(name, "") for name in NUMBERS},
        **_accuracy("S", row.images, evaluation),
        **_accuracy("all", row.images, evaluation),
        "k": evaluation.k,
        "signs": results.signs,
    }


def _accuracy(over: str, images: str, evaluation: EvaluationResults) -> FlatRow:
    accuracy = evaluation.accuracy_of(images, over, "regroup_top1")
    return {
        f"regroup_{over}_correct": accuracy.correct if accuracy else "",
        f"regroup_{over}_total": accuracy.total if accuracy else "",
    }
