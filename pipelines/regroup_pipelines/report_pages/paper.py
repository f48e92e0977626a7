"""The paper's tables and figures that a study asks for, as the report's pages show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.render.inference_table import HEADS as HEADS_OF_TIMES
from regroup_pipelines.render.inference_table import (
    inference_cells,
    inference_latex,
    inference_note,
    inference_rows,
    inference_title,
)
from regroup_pipelines.render.paper_figures import sweep_points, unswept
from regroup_pipelines.render.paper_tables import (
    HEADS,
    PAPER_TABLES,
    QUOTED_HEADS,
    paper_cells,
    paper_rows,
    paper_title,
    quoted_cells,
)
from regroup_pipelines.render.study_files import paper_latex, whole_note
from regroup_pipelines.report_pages.evaluation import Missing, attempt
from regroup_pipelines.report_pages.figures import PER_CENT, series, slug
from regroup_pipelines.report_pages.tables import Cell, Table, text_cell
from regroup_store.kinds.votes import SIGN_CHOICES

if TYPE_CHECKING:
    from regroup_pipelines.report_pages.evaluation import Evaluation, Row

# Sorted by what the column means, not by how its cell reads.
SORTED_BY = {
    "attempted": "attempted", "#S": "success", "measured": "accuracy", "paper": "paper",
    "difference": "difference", "rounds": "rounds",
}  # fmt: skip
ROLES = {
    "softmax_top1": ("softmax", "softmax top-1"),
    "softmax_top5": ("softmax5", "softmax top-5"),
    "regroup_top1": ("regroup", "REGroup top-1"),
    "regroup_top5": ("regroup5", "REGroup top-5"),
}


def paper_tables(evaluation: Evaluation, notes: list[str]) -> list[Table]:
    """Tables 1 to 6, those that the study asks for; `notes` get why one cannot be shown."""
    found = []
    for name in evaluation.study.settings["report"]["tables"]:
        made = attempt(lambda name=name: _tables(name, evaluation))  # type: ignore[misc]
        if isinstance(made, Missing):
            notes.append(f"{name}: {made.reason}")
        else:
            found += made
    return found


def _tables(name: str, evaluation: Evaluation) -> list[Table]:
    if name == "table-6":
        return [_times(evaluation)]
    if name not in PAPER_TABLES:
        return []
    table, results, row = PAPER_TABLES[name], evaluation.study.results, evaluation.row
    download = list(paper_rows(table, results, row))
    cells = paper_cells(table, results, row)
    found = Table(
        f"{evaluation.key}-{name}",
        paper_title(table, results, row),
        HEADS,
        [_cells(HEADS, texts, told) for texts, told in zip(cells, download, strict=True)],
        download,
        whole_note(table, results, row),
        paper_latex(table, results, row),
    )
    return [found, *(_quoted(evaluation) if name == "table-1" else [])]


def _cells(heads: list[str], texts: list[str], row: Row) -> list[Cell]:
    return [_cell(head, text, row) for head, text in zip(heads, texts, strict=True)]


def _cell(head: str, text: str, row: Row) -> Cell:
    value = row.get(SORTED_BY[head]) if head in SORTED_BY else text
    return Cell(text, None if value == "" else value)


def _quoted(evaluation: Evaluation) -> list[Table]:
    cells = quoted_cells(evaluation.study.results)
    if not cells:
        return []
    rows = [[text_cell(text) for text in line] for line in cells]
    download = [dict(zip(QUOTED_HEADS, line, strict=True)) for line in cells]
    note = "Published figures of other defenses, quoted, not measured here."
    return [Table(f"{evaluation.key}-quoted", "Other defenses", QUOTED_HEADS, rows, download, note)]


def _times(evaluation: Evaluation) -> Table:
    results, row = evaluation.study.results, evaluation.row
    download = list(inference_rows(results, row))
    cells = inference_cells(results, row)
    return Table(
        f"{evaluation.key}-table-6",
        inference_title(results, row),
        HEADS_OF_TIMES,
        [
            _cells(HEADS_OF_TIMES, texts, told | {"accuracy": told["median"]})
            for texts, told in zip(cells, download, strict=True)
        ],
        download,
        inference_note(row),
        inference_latex(results, row),
    )


def paper_figures(evaluation: Evaluation, notes: list[str]) -> list[Row]:
    """Figures 2 to 4, those that the study asks for; `notes` get what was not run."""
    asked = evaluation.study.settings["report"]["figures"]
    return [
        *(_sweeps(evaluation, notes) if "figure-2" in asked else []),
        *([_signs(evaluation, notes)] if "figure-3" in asked else []),
        *([_every_k(evaluation)] if "figure-4" in asked else []),
    ]


def _sweeps(evaluation: Evaluation, notes: list[str]) -> list[Row]:
    """Figure 2: top-1 and top-5 against epsilon, a figure a sweep."""
    found = []
    for name, sweep in evaluation.study.settings["sweeps"].items():
        points = sweep_points(name, sweep, evaluation.row)
        if not points:
            notes.append(f"Figure 2: {name}: not run")
            continue
        found.append(
            {
                "key": f"{evaluation.key}-figure-2-{slug(name)}",
                "title": f"Figure 2: {name}",
                "subtitle": f"protocol {sweep['protocol'] or 'by the attack'}",
                "x": "epsilon, 255ths",
                "y": "accuracy over all attempted, %",
                "series": [
                    series(role, label, [(x, row[f"{measure}_all"]) for x, row in points])
                    for measure, (role, label) in ROLES.items()
                ],
                "download": f"{evaluation.key}-accuracy",
            }
        )
    return found


def _signs(evaluation: Evaluation, notes: list[str]) -> Row:
    """Figure 3: positive, negative, both at the study's k."""
    at_k = [r for r in evaluation.row["accuracy_against_k"] if r["k"] == evaluation.k]
    rows = {row["signs"]: row for row in at_k}
    names = [name for name in unswept(evaluation.study.results) if _measured(at_k, name)]
    missing = [name for name in unswept(evaluation.study.results) if name not in names]
    if missing:
        notes.append(f"Figure 3: no number of {', '.join(missing)}")
    return {
        "key": f"{evaluation.key}-figure-3",
        "title": "Figure 3: positive, negative and both",
        "subtitle": f"at k = {evaluation.k}; attacked images: over S",
        "x": "images",
        "y": "REGroup " + PER_CENT,
        "categories": True,
        "series": [
            {**series(signs, signs, [(n, rows[signs][n]) for n in names]), "bars": True}
            for signs in SIGN_CHOICES
        ],
        "download": f"{evaluation.key}-k",
    }


def _measured(rows: list[Row], name: str) -> bool:
    return all(name in row and row[name]["accuracy"] is not None for row in rows)


def _every_k(evaluation: Evaluation) -> Row:
    """Figure 4: every k with both signs, and each tap alone."""
    taps, threshold = evaluation.row["tap_accuracy"], evaluation.row["rule"]["threshold"]
    rows = [row for row in evaluation.row["accuracy_against_k"] if row["signs"] == "both"]
    names = [n for n in unswept(evaluation.study.results) if _measured(rows, n)]
    alone = [(len(taps) + 1 - tap["position"], tap["both"]) for tap in taps]
    bars = {**series("alone", "the k-th tap from the end alone, clean", alone), "bars": True}
    return {
        "key": f"{evaluation.key}-figure-4",
        "title": "Figure 4: every k, and each tap alone",
        "subtitle": "both signs; attacked images: over S",
        "x": "k (last taps that vote)",
        "y": PER_CENT,
        "tall": True,
        "series": [
            bars,
            *(
                series(f"set-{number}", name, [(row["k"], row[name]) for row in rows])
                for number, name in enumerate(names)
            ),
        ],
        "lines": [
            {"y": 100 * threshold, "text": f"{100 * threshold:g} %"},
            {"x": evaluation.k, "text": f"k = {evaluation.k}"},
        ],
        "download": f"{evaluation.key}-k",
    }
