"""The paper's figures 2 to 4 from a study's results, as PNG and SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regroup_cluster.printable import printable
from regroup_pipelines.render.plots import SIGN_STYLES, per_cent, pyplot, save_figure
from regroup_pipelines.render.study_tables import NAMES
from regroup_pipelines.results.base import MEASURES

if TYPE_CHECKING:
    from pathlib import Path

    from regroup_pipelines.results.records import (
        EvaluationResults,
        MeasuredImages,
        StudyResults,
    )
    from regroup_pipelines.schema.attacks import Sweep

SWEEP_STYLES = {
    "softmax_top1": ("#D55E00", "-"),
    "softmax_top5": ("#D55E00", "--"),
    "regroup_top1": ("#0072B2", "-"),
    "regroup_top5": ("#0072B2", "--"),
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def figure_2(results: StudyResults, evaluation: EvaluationResults, path: Path) -> None:
    """Draw top-1 and top-5 against epsilon: one panel per sweep, over all attempted or a subset."""
    sweeps: dict[str, Sweep | None] = {**results.settings.sweeps} or {"no sweep": None}
    figure, axes = pyplot().subplots(
        1, len(sweeps), figsize=(5 * len(sweeps), 3.6), sharey=True, squeeze=False
    )
    for axis, (name, sweep) in zip(axes[0], sweeps.items(), strict=True):
        points = sweep_points(name, sweep, evaluation) if sweep else []
        _draw_sweep(axis, points)
        protocol = f"\nprotocol {sweep.protocol or 'by the attack'}" if sweep else ""
        _finish(axis, bool(points), f"{name}{protocol}{_counted(points)}", "epsilon, 255ths")
    axes[0][0].set_ylabel("accuracy, %")
    save_figure(figure, path)


def _draw_sweep(axis: Any, points: list[tuple[int, MeasuredImages]]) -> None:
    xs = [x for x, _ in points]
    for measure in MEASURES if points else ():
        colour, dash = SWEEP_STYLES[measure]
        shares, low, high = per_cent([row.over_all.of(measure) for _, row in points])
        axis.plot(xs, shares, color=colour, linestyle=dash, marker="o", ms=3, label=NAMES[measure])
        axis.fill_between(xs, low, high, color=colour, alpha=0.1)


def _counted(points: list[tuple[int, MeasuredImages]]) -> str:
    """Return the line of a panel's title that says which images its points count."""
    if not points:
        return ""
    whole = points[0][1].whole
    return f"\nover all images of {whole.subset}" if whole else "\nover all attempted images"


def sweep_points(
    name: str, sweep: Sweep, evaluation: EvaluationResults
) -> list[tuple[int, MeasuredImages]]:
    """Return epsilon in 255ths and the accuracy row of every attack of a sweep that was run."""
    rows = [(level, evaluation.row(f"{name}-{level}")) for level in sorted(sweep.levels)]
    return [(x, row) for x, row in rows if row and (row.attempted or row.whole)]


def figure_3(results: StudyResults, evaluation: EvaluationResults, path: Path) -> None:
    """Draw REGroup's top-1 by positive, negative and both signs at the study's k, over S."""
    names = results.unswept
    figure, axis = pyplot().subplots(figsize=(max(5, 1.1 * len(names)), 3.6))
    rows = {r.signs: r.accuracy for r in evaluation.accuracy_against_k if r.k == evaluation.k}
    for number, signs in enumerate(SIGN_STYLES):
        for group, name in enumerate(names):
            found = rows[signs].get(name)
            share, x = found and found.accuracy, group + (number - 1) * 0.27
            label = signs if not group else None
            axis.bar(x, 100 * (share or 0), 0.25, color=SIGN_STYLES[signs][0], label=label)
            if share is None and number == 1:
                why = "not run" if found is None else "no samples"
                axis.text(x, 3, why, rotation=90, ha="center", va="bottom")
    axis.set_xticks(range(len(names)), [*map(printable, names)], rotation=30, ha="right")
    title = f"{evaluation.taps} taps, k = {evaluation.k}; attacked images: over #S"
    axis.set(ylim=(0, 102), ylabel="REGroup top-1, %", title=title)
    _legend_beside(axis)
    save_figure(figure, path)


def _legend_beside(axis: Any) -> None:
    axis.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def figure_4(results: StudyResults, evaluation: EvaluationResults, path: Path) -> None:
    """Draw REGroup's top-1 against k, each tap alone, and the rule's threshold; both signs vote."""
    taps, threshold = evaluation.tap_accuracy, evaluation.rule.threshold
    figure, axis = pyplot().subplots(figsize=(max(8, 5 + 0.2 * len(taps)), 4))
    alone = [(len(taps) + 1 - row.position, row.accuracy["both"].accuracy) for row in taps]
    xs, ys = [x for x, _ in alone], [100 * (share or 0) for _, share in alone]
    axis.bar(xs, ys, color="#BBBBBB", label="the k-th tap from the end alone, clean")
    for number, name in enumerate(results.unswept):
        _draw_along_k(axis, evaluation, number, name)
    rule = f"{100 * threshold:g} %"
    axis.axhline(100 * threshold, color="#888888", linestyle="--", linewidth=1, label=rule)
    axis.axvline(evaluation.k, color="#888888", linewidth=1, label=f"k = {evaluation.k}")
    title = f"{evaluation.taps} taps; attacked images: over #S"
    axis.set(ylim=(0, 102), xlabel="k (last taps that vote)", ylabel="top-1, %", title=title)
    axis.xaxis.get_major_locator().set_params(integer=True)
    _legend_beside(axis)
    save_figure(figure, path)


def _draw_along_k(axis: Any, evaluation: EvaluationResults, number: int, name: str) -> None:
    rows = [row for row in evaluation.accuracy_against_k if row.signs == "both"]
    shares = [(r.k, r.accuracy[name].accuracy) for r in rows if name in r.accuracy]
    known = [(k, 100 * share) for k, share in shares if share is not None]
    label = name if known else f"{name}: {'no samples' if shares else 'not run'}"
    colour = COLOURS[number % len(COLOURS)]
    dash = ("-", "--", ":")[number // len(COLOURS) % 3]
    axis.plot(*zip(*known, strict=True) if known else ([], []), dash, color=colour, label=label)


def _finish(axis: Any, ran: bool, title: str, xlabel: str) -> None:
    if ran:
        axis.legend(fontsize="small")
    else:
        axis.text(0.5, 0.5, "not run", ha="center", transform=axis.transAxes)
    axis.set(title=title, xlabel=xlabel, ylim=(0, 102))
    axis.grid(alpha=0.3)
