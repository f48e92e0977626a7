"""Data of the figures that a page's script draws."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from regroup.bank import SIGN_CHOICES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.report_pages.curves import Curve
    from regroup_pipelines.report_pages.evaluation import ReportedEvaluation
    from regroup_pipelines.results.base import Accuracy

PER_CENT = "top-1, %"


@dataclass(frozen=True)
class Series:
    """A line of a figure, in per cent with the bounds of its intervals.

    Attributes:
        role: determines colour, dash and marker.
        name: its name in the legend.
        x: numbers or categories.
        y: values.
        low: lower bounds.
        high: upper bounds.
        bars: whether it is drawn as bars.
    """

    role: str
    name: str
    x: list[float | str]
    y: list[float]
    low: list[float]
    high: list[float]
    bars: bool = False


@dataclass(frozen=True)
class Line:
    """A vertical line at `x` or a horizontal one at `y`, with a label."""

    text: str
    x: float | None = None
    y: float | None = None


@dataclass(frozen=True)
class HeatMap:
    """A square matrix of counts.

    Attributes:
        z: counts by row and column.
        names: names of the rows, and of the columns.
    """

    z: list[list[int]]
    names: list[str]


@dataclass(frozen=True)
class Figure:
    """A figure of a page.

    Attributes:
        key: its name in links and files.
        title: its title.
        subtitle: text below the title.
        x: title of the x axis.
        y: title of the y axis.
        series: its lines.
        download: key of the table that has its numbers.
        lines: straight lines with labels.
        names: names of the points by x.
        heat: a heat map instead of lines.
        step: whether lines are step functions.
        categories: whether x is a category.
        tall: whether it is drawn taller than usual.
        alt: where the same numbers are given as text; "": in the table on the page.
    """

    key: str
    title: str
    subtitle: str
    x: str
    y: str
    series: tuple[Series, ...] = ()
    download: str | None = None
    lines: tuple[Line, ...] = ()
    names: dict[str, str] | None = None
    heat: HeatMap | None = None
    step: bool = False
    categories: bool = False
    tall: bool = False
    alt: str = ""

    def plain(self) -> JsonObject:
        """Return the figure as plain JSON, without unset attributes."""
        found: JsonObject = _given(asdict(self))
        return found


def _given(value: Any) -> Any:
    """Return plain JSON without keys whose value is None, False or empty text."""
    if isinstance(value, dict):
        unset = (None, False, "")
        known = {key: each for key, each in value.items() if not any(each is u for u in unset)}
        return {key: _given(each) for key, each in known.items()}
    return [_given(each) for each in value] if isinstance(value, list | tuple) else value


def k_figures(evaluation: ReportedEvaluation) -> list[Figure]:
    """Return accuracy against k: one figure per set of images, one line per sign choice."""
    rows = evaluation.results.accuracy_against_k
    return [
        Figure(
            key=f"{evaluation.key}-k-{slug(images.images)}-figure",
            title=images.images,
            subtitle=images.title,
            x="k (last taps that vote)",
            y="REGroup " + PER_CENT,
            series=tuple(
                series(
                    signs,
                    signs,
                    [(row.k, row.accuracy[images.images]) for row in rows if row.signs == signs],
                )
                for signs in SIGN_CHOICES
            ),
            lines=(Line(f"k = {evaluation.k}", x=evaluation.k),),
            download=f"{evaluation.key}-k",
        )
        for images in evaluation.study.results.images
        if rows and images.images in rows[0].accuracy
    ]


def taps_figure(evaluation: ReportedEvaluation) -> Figure:
    """Return the accuracy of each tap alone, first to last, with the rule's threshold."""
    rows, threshold = evaluation.results.tap_accuracy, evaluation.results.rule.threshold
    return Figure(
        key=f"{evaluation.key}-taps-figure",
        title="Each tap alone",
        subtitle="correctly classified clean images; the last taps, after the line, vote",
        x="tap, first to last",
        y="of the tap alone, " + PER_CENT,
        series=tuple(
            series(signs, signs, [(row.position, row.accuracy[signs]) for row in rows])
            for signs in SIGN_CHOICES
        ),
        names={str(row.position): row.tap for row in rows},
        lines=(
            Line(f"{100 * threshold:g} %", y=100 * threshold),
            Line(f"k = {evaluation.k}", x=len(rows) - evaluation.k + 0.5),
        ),
        download=f"{evaluation.key}-taps",
    )


def curve_figure(evaluation: ReportedEvaluation, curve: Curve) -> Figure:
    """Return softmax's and REGroup's accuracy against the size of the perturbation."""
    scale = 255 if curve.size == "linf" else 1
    unit = "L-infinity, in 255ths" if curve.size == "linf" else curve.size.upper()
    key = f"{evaluation.key}-curve-{slug(curve.attack)}"
    softmax = [(scale * point.epsilon, point.softmax) for point in curve.points]
    regroup = [(scale * point.epsilon, point.regroup) for point in curve.points]
    return Figure(
        key=f"{key}-figure",
        title=curve.attack,
        subtitle=curve.title,
        x=f"perturbation, {unit}",
        y=PER_CENT,
        step=curve.minimal,
        series=(series("softmax", "softmax", softmax), series("regroup", "REGroup", regroup)),
        download=key,
    )


def series(
    role: str, name: str, cells: Iterable[tuple[float | str, Accuracy]], bars: bool = False
) -> Series:
    """Return a line of a figure through the accuracies that have a value."""
    known = [(x, cell, cell.accuracy) for x, cell in cells if cell.accuracy is not None]
    return Series(
        role=role,
        name=name,
        x=[x if isinstance(x, str) else round(x, 6) for x, _, _ in known],
        y=[round(100 * share, 3) for _, _, share in known],
        low=[round(100 * cell.interval95[0], 3) for _, cell, _ in known],
        high=[round(100 * cell.interval95[1], 3) for _, cell, _ in known],
        bars=bars,
    )


def slug(name: str) -> str:
    """Turn `name` into a part of a file name: ASCII letters, digits, '_' and '-'."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in name)
