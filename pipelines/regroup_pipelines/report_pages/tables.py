"""Tables of the report: those of the study, and the headline numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.render.attack_table import attacks_table
from regroup_pipelines.render.study_tables import accuracy_table, k_table, taps_table
from regroup_pipelines.render.table import Cell, Table, accuracy_cell, number_cell, text_cell
from regroup_pipelines.results.base import NOT_RUN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regroup_pipelines.report_pages.evaluation import ReportedEvaluation
    from regroup_pipelines.results.records import AccuracyRow


def evaluation_tables(evaluation: ReportedEvaluation) -> list[Table]:
    """Return the tables of accuracy, k, taps and attacks."""
    results, row = evaluation.study.results, evaluation.results
    makers = [accuracy_table, k_table, taps_table, *([attacks_table] if results.attacks else [])]
    return [make(results, row) for make in makers]


def headline_table(evaluations: Iterable[ReportedEvaluation]) -> Table:
    """Return the headline numbers of every evaluation: top-1 over all attempted and over S."""
    heads = ["evaluation", "k", "images", "attempted", "#S", "softmax, all", "REGroup, all"]
    rows = [
        [
            text_cell(evaluation.title),
            number_cell(evaluation.k),
            text_cell(row.images),
            *_headline(row),
        ]
        for evaluation in evaluations
        for row in evaluation.results.accuracy
    ]
    note = "Top-1 with 95 % Wilson intervals. REGroup, S: over the images that fool softmax."
    return Table("headline", "Headline numbers", [*heads, "REGroup, S"], rows, note=note)


def _headline(row: AccuracyRow) -> list[Cell]:
    if row.kind == "not run":
        return [Cell(NOT_RUN)] * 5
    return [
        number_cell(row.attempted),
        number_cell(row.success),
        accuracy_cell(row.accuracy("all", "softmax_top1")),
        accuracy_cell(row.accuracy("all", "regroup_top1")),
        accuracy_cell(row.accuracy("S", "regroup_top1")),
    ]
