"""Tables of one evaluation of a study: accuracy, every k, every tap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.render.table import (
    Cell,
    Table,
    accuracy_cell,
    flat_accuracy,
    number_cell,
    text_cell,
)
from regroup_pipelines.results.base import MEASURES, NOT_RUN
from regroup_pipelines.results.records import CleanImages, ImagesNotRun
from regroup_pipelines.results.whole_subset import whole_subset_notes
from regroup_store.kinds.votes import SIGN_CHOICES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regroup_pipelines.json_types import FlatRow
    from regroup_pipelines.results.records import (
        AccuracyRow,
        EvaluationResults,
        KRow,
        StudyResults,
    )

NAMES = {
    "softmax_top1": "softmax top-1",
    "softmax_top5": "softmax top-5",
    "regroup_top1": "REGroup top-1",
    "regroup_top5": "REGroup top-5",
}


def key_of(evaluation: EvaluationResults) -> str:
    """Return the key of an evaluation in folders, files and links."""
    return f"{evaluation.taps}-{evaluation.bank}"


def accuracy_table(results: StudyResults, evaluation: EvaluationResults) -> Table:
    """Return softmax and REGroup accuracy, top-1 and top-5, over all (see the note) and over S."""
    heads = ["images", "top", "attempted", "failed rows", "#S"]
    heads += [f"{measure}, {over}" for over in ("all", "S") for measure in ("softmax", "REGroup")]
    return Table(
        f"{key_of(evaluation)}-accuracy",
        f"Accuracy, {evaluation.taps} taps, k = {evaluation.k}, signs = {results.signs}",
        heads,
        [_accuracy_cells(row, top) for row in evaluation.accuracy for top in (1, 5)],
        list(_accuracy_download(results, evaluation)),
        " ".join(whole_subset_notes(evaluation.accuracy)),
    )


def _accuracy_cells(row: AccuracyRow, top: int) -> list[Cell]:
    if isinstance(row, ImagesNotRun):
        return [text_cell(row.images), number_cell(top), *[Cell(NOT_RUN)] * 7]
    counts = [number_cell(count) for count in (row.attempted, row.failed, row.success)]
    wanted = [measure for measure in MEASURES if measure.endswith(str(top))]
    measured = [
        accuracy_cell(row.accuracy(group, measure)) for group in ("all", "S") for measure in wanted
    ]
    return [text_cell(row.images), number_cell(top), *counts, *measured]


def _accuracy_download(results: StudyResults, evaluation: EvaluationResults) -> Iterator[FlatRow]:
    titles = {row.images: _attack_title(row) for row in results.images}
    for row in evaluation.accuracy:
        attacked = row.images in results.settings.attacks
        for over in ("all", "S") if attacked else ("all",):
            for measure in MEASURES:
                name, _, top = measure.partition("_top")
                measured = None if isinstance(row, ImagesNotRun) else row
                yield {
                    "images": row.images,
                    "attack": titles[row.images],
                    "attempted": measured.attempted if measured else NOT_RUN,
                    "failed": measured.failed if measured else NOT_RUN,
                    "success": measured.success if measured else NOT_RUN,
                    "measure": name,
                    "top": int(top),
                    "over": over,
                    "k": evaluation.k,
                    "signs": results.signs,
                    **flat_accuracy(evaluation.accuracy_of(row.images, over, measure)),
                }


def _attack_title(row: object) -> str:
    return "" if isinstance(row, CleanImages) else str(getattr(row, "title", ""))


def k_table(results: StudyResults, evaluation: EvaluationResults) -> Table:
    """Return REGroup's top-1 at every k and sign choice, without the attacks of sweeps."""
    names = results.unswept
    return Table(
        f"{key_of(evaluation)}-k",
        f"REGroup top-1 against k, {evaluation.taps} taps",
        ["k", "signs", *names],
        [_k_cells(row, names) for row in evaluation.accuracy_against_k],
        list(_k_download(results, evaluation)),
        "k is the number of last taps that vote. Attacked images: over S. Clean images: over all.",
    )


def _k_cells(row: KRow, names: list[str]) -> list[Cell]:
    cells = [
        accuracy_cell(row.accuracy[name]) if name in row.accuracy else Cell(NOT_RUN)
        for name in names
    ]
    return [number_cell(row.k), text_cell(row.signs), *cells]


def _k_download(results: StudyResults, evaluation: EvaluationResults) -> Iterator[FlatRow]:
    for images in results.images:
        for row in evaluation.accuracy_against_k:
            yield {
                "images": images.images,
                "attack": _attack_title(images),
                "over": "all" if isinstance(images, CleanImages) else "S",
                "signs": row.signs,
                "k": row.k,
                **flat_accuracy(row.accuracy.get(images.images)),
            }


def taps_table(results: StudyResults, evaluation: EvaluationResults) -> Table:  # noqa: ARG001
    """Return each tap's own accuracy on correctly classified clean images, and which taps vote."""
    threshold = evaluation.rule.threshold
    rows = [
        [
            number_cell(row.position),
            text_cell(row.tap),
            *(accuracy_cell(row.accuracy[signs]) for signs in SIGN_CHOICES),
            text_cell("yes" if (row.accuracy["both"].accuracy or 0) >= threshold else "no"),
            text_cell("yes" if row.votes else "no"),
        ]
        for row in evaluation.tap_accuracy
    ]
    heads = ["position", "tap", *SIGN_CHOICES, f"reaches {100 * threshold:g} %"]
    return Table(
        f"{key_of(evaluation)}-taps",
        f"Each tap alone, {evaluation.taps} taps, top-1 on correctly classified clean images",
        [*heads, f"votes at k = {evaluation.k}"],
        rows,
        list(_taps_download(evaluation)),
    )


def _taps_download(evaluation: EvaluationResults) -> Iterator[FlatRow]:
    for row in evaluation.tap_accuracy:
        for signs in SIGN_CHOICES:
            yield {
                "position": row.position,
                "tap": row.tap,
                "signs": signs,
                "votes": row.votes,
                "threshold": evaluation.rule.threshold,
                **flat_accuracy(row.accuracy[signs]),
            }
