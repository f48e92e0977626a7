"""What `--json` prints of a study, read as the records that it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.results.records import (
    AttackedImages,
    EvaluationResults,
    ImagesNotRun,
    MeasuredImages,
    StudyResults,
)
from regroup_pipelines.results.stored import parse_results

if TYPE_CHECKING:
    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.results.base import Accuracies


def study_results(printed: JsonObject) -> StudyResults:
    """The results among what a command printed."""
    known = {key: value for key, value in printed.items() if key in StudyResults.model_fields}
    return parse_results(known, "what was printed")


def measured(evaluation: EvaluationResults) -> dict[str, MeasuredImages]:
    """The rows of the accuracy table that have numbers, by their images."""
    rows = evaluation.accuracy
    return {row.images: row for row in rows if isinstance(row, MeasuredImages)}


def not_run(evaluation: EvaluationResults) -> dict[str, str]:
    """Why the other rows have none, by their images."""
    rows = evaluation.accuracy
    return {row.images: row.reason for row in rows if isinstance(row, ImagesNotRun)}


def over_success(row: MeasuredImages) -> Accuracies:
    """The accuracies of attacked images over S."""
    assert row.over_success is not None
    return row.over_success


def attacked(results: StudyResults) -> dict[str, AttackedImages]:
    """The attacks that were run, by their images."""
    return {row.images: row for row in results.attacks if isinstance(row, AttackedImages)}
