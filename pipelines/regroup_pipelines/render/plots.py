"""Figures of a study as PNG and SVG: accuracy against k, and each tap alone."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from regroup_cluster.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from regroup_pipelines.results.base import Accuracy
    from regroup_pipelines.results.records import KRow, TapRow

# Okabe-Ito colours, which colour-blind readers can distinguish.
SIGN_STYLES = {
    "both": ("#000000", "o"),
    "positive": ("#0072B2", "^"),
    "negative": ("#D55E00", "v"),
}


def plot_k(
    rows: Sequence[KRow],
    titles: dict[str, str],
    k: int,
    path: Path,
    line: str = "the 75 % rule",
) -> None:
    """Draw accuracy against k with one panel per set of images, as PNG and SVG.

    Args:
        rows: the table of k.
        titles: title of every panel by set of images; a set without rows is shown as "not run".
        k: where the dashed line is.
        path: of the PNG; the SVG has the same name.
        line: label of the dashed line.
    """
    plt = pyplot()
    figure, axes = plt.subplots(
        1, len(titles), figsize=(4 * len(titles), 3.4), sharey=True, squeeze=False
    )
    for axis, (name, title) in zip(axes[0], titles.items(), strict=True):
        if name in rows[0].accuracy:
            _panel(axis, rows, name, k, line)
        else:
            axis.text(0.5, 0.5, "not run", ha="center", transform=axis.transAxes)
        over = "" if name.split()[0] == "clean" else " (over #S)"
        axis.set(title=_wrapped(f"{title}{over}"), xlabel="k (last taps that vote)", ylim=(0, 102))
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("REGroup top-1, %")
    axes[0][0].legend(loc="lower left")
    save_figure(figure, path)


def _panel(axis: Any, rows: Sequence[KRow], name: str, k: int, line: str) -> None:
    for signs in SIGN_STYLES:
        cells = [(row.k, row.accuracy[name]) for row in rows if row.signs == signs]
        _line(axis, cells, signs)
    axis.axvline(k, color="#888888", linestyle="--", linewidth=1, label=line)


def plot_taps(rows: Sequence[TapRow], k: int, threshold: float, title: str, path: Path) -> None:
    """Draw each tap's accuracy on correctly classified clean images, as PNG and SVG.

    The rule's threshold is a dashed line; the last `k` taps, which vote, are shaded.
    """
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(max(5, 2 + 0.22 * len(rows)), 3.6))
    for signs in SIGN_STYLES:
        _line(axis, [(row.position, row.accuracy[signs]) for row in rows], signs)
    rule = f"{100 * threshold:g} %"
    axis.axhline(100 * threshold, color="#888888", linestyle="--", linewidth=1, label=rule)
    votes = (len(rows) - k + 0.5, len(rows) + 0.5)
    axis.axvspan(*votes, color="#009E73", alpha=0.12, label=f"vote at k = {k}")
    axis.set(title=title, xlabel="tap, first to last", ylabel="top-1 of the tap alone, %")
    axis.set(ylim=(0, 102), xlim=(0.5, len(rows) + 0.5))
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", fontsize="small")
    save_figure(figure, path)


def pyplot() -> Any:
    """Return matplotlib.pyplot for use without a display, with reproducible ids in SVG files."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "regroup"
    mpl.rcParams["text.parse_math"] = False  # a name with two $ is no formula
    import matplotlib.pyplot as plt

    return plt


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as a PNG to `path` and as an SVG next to it, without a date."""
    from matplotlib.text import Text

    path.parent.mkdir(parents=True, exist_ok=True)
    for each in figure.findobj(Text):
        each.set_text(printable(each.get_text()))
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    pyplot().close(figure)


def _wrapped(title: str) -> str:
    """Wrap the title of a panel to lines that fit; short titles are unchanged."""
    head, *rest = title.split("\n", 1)
    return "\n".join([head, *textwrap.wrap(rest[0], 38)]) if rest else head


def _line(axis: Any, cells: list[tuple[int, Accuracy]], signs: str) -> None:
    known = [(x, cell) for x, cell in cells if cell.accuracy is not None]
    xs, (colour, marker) = [x for x, _ in known], SIGN_STYLES[signs]
    values, low, high = per_cent([cell for _, cell in known])
    axis.plot(xs, values, color=colour, marker=marker, markersize=4, label=f"signs: {signs}")
    axis.fill_between(xs, low, high, color=colour, alpha=0.1)


def per_cent(cells: Sequence[Accuracy]) -> tuple[list[float], list[float], list[float]]:
    """Return measured accuracies and the bounds of their intervals in per cent."""
    shares = [100 * cell.accuracy for cell in cells if cell.accuracy is not None]
    low, high = ([100 * cell.interval95[side] for cell in cells] for side in (0, 1))
    return shares, low, high
