"""Files of a study: results.json, tables (Markdown, CSV, JSON, LaTeX) and figures."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from regroup_pipelines.render.attack_table import attacks_table
from regroup_pipelines.render.caption import caption, image_lines
from regroup_pipelines.render.escapes import markdown_text
from regroup_pipelines.render.inference_table import inference_table
from regroup_pipelines.render.output_folder import output_file
from regroup_pipelines.render.paper_figures import figure_2, figure_3, figure_4
from regroup_pipelines.render.paper_tables import (
    NO_QUOTED,
    PAPER_TABLES,
    paper_table,
    quoted_table,
)
from regroup_pipelines.render.plots import plot_k, plot_taps
from regroup_pipelines.render.study_tables import accuracy_table, k_table, key_of, taps_table
from regroup_pipelines.results.records import CleanImages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from regroup_pipelines.render.table import Table
    from regroup_pipelines.results.records import EvaluationResults, StudyResults
    from regroup_pipelines.schema.study import Report


def write_report(results: StudyResults, report: Report, output: Path) -> list[Path]:
    """Write results.json, and one folder of tables and figures per tap policy and bank.

    Raises:
        UsageError: a file or folder of these names is a link.
    """
    plain = json.dumps(results.plain(), indent=2)
    written = [_write(output, output / "results.json", plain + "\n")]
    for evaluation in results.evaluations:
        folder = output / key_of(evaluation)
        for name in report.tables:
            tables = study_tables(name, results, evaluation)
            none = f"{NO_QUOTED}\n\n" if name == "table-1" and len(tables) == 1 else ""
            below = none + caption_of(results, evaluation)
            written += _write_table(output, folder / name, tables, below)
        for figure in report.figures:
            path = output_file(output, folder / f"{figure}.png")
            output_file(output, path.with_suffix(".svg"))
            FIGURES[figure](results, evaluation, path)
            written += [path, path.with_suffix(".svg")]
    return written


def caption_of(results: StudyResults, evaluation: EvaluationResults) -> str:
    """Return the text below every Markdown table: caption and list of the sets of images."""
    lines = [*caption(results, evaluation).splitlines(), "", *image_lines(results)]
    return "".join(f"{markdown_text(line)}\n" for line in lines)


def _write_table(output: Path, stem: Path, tables: list[Table], below: str) -> list[Path]:
    """Write the first table as Markdown, CSV, JSON and LaTeX, and append the others as text."""
    first, *others = tables
    parts = [f"# {markdown_text(first.title)}", "", first.markdown, markdown_text(first.note), ""]
    for table in others:
        parts += [markdown_text(f"{table.title}: {table.note}"), "", table.markdown]
    written = [
        _write(output, stem.with_suffix(".md"), "\n".join([*parts, below])),
        _write(output, stem.with_suffix(".csv"), first.csv),
        _write(output, stem.with_suffix(".json"), first.json),
    ]
    latex = "".join(table.latex for table in tables)
    return written + ([_write(output, stem.with_suffix(".tex"), latex)] if latex else [])


def _write(output: Path, path: Path, text: str) -> Path:
    file = output_file(output, path)
    file.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def study_tables(name: str, results: StudyResults, evaluation: EvaluationResults) -> list[Table]:
    """Return the table `name` and those that accompany it."""
    tables = [TABLES[name](results, evaluation)]
    quoted = quoted_table(results, evaluation) if name == "table-1" else None
    return [*tables, quoted] if quoted else tables


def _figure_k(results: StudyResults, evaluation: EvaluationResults, path: Path) -> None:
    titles = {
        row.images: "" if isinstance(row, CleanImages) else row.title for row in results.images
    }
    panels = {name: f"{name}\n{titles[name]}" for name in results.unswept}
    rule = evaluation.rule
    line = f"the {100 * rule.threshold:g} % rule" if rule.k == evaluation.k else "k"
    plot_k(evaluation.accuracy_against_k, panels, evaluation.k, path, line)


def _figure_taps(results: StudyResults, evaluation: EvaluationResults, path: Path) -> None:
    title = f"{results.settings.model.name}, {evaluation.taps} taps"
    threshold = evaluation.rule.threshold
    plot_taps(evaluation.tap_accuracy, evaluation.k, threshold, title, path)


TABLES: dict[str, Callable[[StudyResults, EvaluationResults], Table]] = {
    "accuracy": accuracy_table,
    "k": k_table,
    "taps": taps_table,
    "attacks": attacks_table,
    **{name: partial(paper_table, table) for name, table in PAPER_TABLES.items()},
    "table-6": inference_table,
}
FIGURES: dict[str, Callable[[StudyResults, EvaluationResults, Path], None]] = {
    "k": _figure_k,
    "taps": _figure_taps,
    "figure-2": figure_2,
    "figure-3": figure_3,
    "figure-4": figure_4,
}
