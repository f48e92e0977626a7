"""The paper's tables and figures that a study requests, for the report's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup.bank import SIGN_CHOICES
from regroup_pipelines.render.paper_figures import sweep_points
from regroup_pipelines.render.paper_tables import PAPER_TABLES
from regroup_pipelines.render.study_files import study_tables
from regroup_pipelines.render.study_tables import NAMES
from regroup_pipelines.report_pages.evaluation import Missing, or_missing
from regroup_pipelines.report_pages.figures import PER_CENT, Figure, Line, series, slug
from regroup_pipelines.results.base import MEASURES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regroup_pipelines.render.table import Table
    from regroup_pipelines.report_pages.evaluation import ReportedEvaluation
    from regroup_pipelines.results.records import KRow

_SHOWN = (*PAPER_TABLES, "table-6")
ROLES = {
    "softmax_top1": "softmax",
    "softmax_top5": "softmax5",
    "regroup_top1": "regroup",
    "regroup_top5": "regroup5",
}


def paper_tables(evaluation: ReportedEvaluation, notes: list[str]) -> list[Table]:
    """Return those of tables 1 to 6 that the study requests; adds to `notes` what is missing."""
    found: list[Table] = []
    results, row = evaluation.study.results, evaluation.results
    names = [name for name in results.settings.report.tables if name in _SHOWN]
    if names and evaluation.study.declared_values and not results.settings.paper_values:
        notes.append(
            "published values are not shown: a report reads no file that is not named: give "
            f"--paper-values {evaluation.study.declared_values}"
        )
    for name in names:
        made = or_missing(lambda name=name: study_tables(name, results, row))  # type: ignore[misc]
        if isinstance(made, Missing):
            notes.append(f"{name}: {made.reason}")
        else:
            found += made
    return found


def paper_figures(evaluation: ReportedEvaluation, notes: list[str]) -> list[Figure]:
    """Return those of figures 2 to 4 that the study requests; adds to `notes` what was not run."""
    asked = evaluation.study.settings.report.figures
    return [
        *(_sweeps(evaluation, notes) if "figure-2" in asked else []),
        *([_signs(evaluation, notes)] if "figure-3" in asked else []),
        *([_every_k(evaluation)] if "figure-4" in asked else []),
    ]


def _sweeps(evaluation: ReportedEvaluation, notes: list[str]) -> list[Figure]:
    """Return figure 2, top-1 and top-5 against epsilon, once per sweep."""
    found = []
    for name, sweep in evaluation.study.settings.sweeps.items():
        points = sweep_points(name, sweep, evaluation.results)
        if not points:
            notes.append(f"Figure 2: {name}: not run")
            continue
        found.append(
            Figure(
                key=f"{evaluation.key}-figure-2-{slug(name)}",
                title=f"Figure 2: {name}",
                subtitle=f"protocol {sweep.protocol or 'by the attack'}",
                x="epsilon, 255ths",
                y="accuracy over all attempted, %",
                series=tuple(
                    series(
                        ROLES[measure],
                        NAMES[measure],
                        [(x, row.over_all.of(measure)) for x, row in points],
                    )
                    for measure in MEASURES
                ),
                download=f"{evaluation.key}-accuracy",
            )
        )
    return found


def _signs(evaluation: ReportedEvaluation, notes: list[str]) -> Figure:
    """Return figure 3, top-1 by positive, negative and both signs at the study's k."""
    at_k = [r for r in evaluation.results.accuracy_against_k if r.k == evaluation.k]
    rows = {row.signs: row.accuracy for row in at_k}
    every = evaluation.study.results.unswept
    names = [name for name in every if _measured(at_k, name)]
    if missing := [name for name in every if name not in names]:
        notes.append(f"Figure 3: no number of {', '.join(missing)}")
    return Figure(
        key=f"{evaluation.key}-figure-3",
        title="Figure 3: positive, negative and both",
        subtitle=f"at k = {evaluation.k}; attacked images: over S",
        x="images",
        y="REGroup " + PER_CENT,
        categories=True,
        series=tuple(
            series(signs, signs, [(n, rows[signs][n]) for n in names], bars=True)
            for signs in SIGN_CHOICES
        ),
        download=f"{evaluation.key}-k",
    )


def _measured(rows: Iterable[KRow], name: str) -> bool:
    return all(name in r.accuracy and r.accuracy[name].accuracy is not None for r in rows)


def _every_k(evaluation: ReportedEvaluation) -> Figure:
    """Return figure 4, top-1 at every k with both signs, and each tap alone."""
    taps, threshold = evaluation.results.tap_accuracy, evaluation.results.rule.threshold
    rows = [row for row in evaluation.results.accuracy_against_k if row.signs == "both"]
    names = [n for n in evaluation.study.results.unswept if _measured(rows, n)]
    alone = [(len(taps) + 1 - tap.position, tap.accuracy["both"]) for tap in taps]
    return Figure(
        key=f"{evaluation.key}-figure-4",
        title="Figure 4: every k, and each tap alone",
        subtitle="both signs; attacked images: over S",
        x="k (last taps that vote)",
        y=PER_CENT,
        tall=True,
        series=(
            series("alone", "the k-th tap from the end alone, clean", alone, bars=True),
            *(
                series(f"set-{number}", name, [(row.k, row.accuracy[name]) for row in rows])
                for number, name in enumerate(names)
            ),
        ),
        lines=(
            Line(f"{100 * threshold:g} %", y=100 * threshold),
            Line(f"k = {evaluation.k}", x=evaluation.k),
        ),
        download=f"{evaluation.key}-k",
    )
