"""Tables on a terminal and the plot of accuracy against k."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

# Okabe-Ito colours: told apart by colour-blind readers.
SIGN_STYLES = {
    "both": ("#000000", "o"),
    "positive": ("#0072B2", "^"),
    "negative": ("#D55E00", "v"),
}


def show(table: Table, quiet: bool) -> None:
    """Print a table on standard output, unless that is reserved for JSON."""
    if not quiet:
        console = Console(file=sys.stdout)
        # Off a terminal rich assumes 80 columns and cuts cells: a log must hold them whole.
        console.width = console.width if console.is_terminal else max(console.width, 140)
        console.print(table)


def print_line(line: str, quiet: bool) -> None:
    """Print a line on standard output, unless that is reserved for JSON."""
    if not quiet:
        print(line, flush=True)


def format_accuracy(cell: dict[str, Any] | None) -> str:
    """`57.0 % [52.1, 61.8]`, or "-" where there is nothing to measure."""
    if cell is None or cell["accuracy"] is None:
        return "-"
    low, high = cell["interval95"]
    return f"{100 * cell['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def accuracy_table(rows: list[dict[str, Any]]) -> Table:
    """Softmax and REGroup top-1, over all attempted and over #S, with 95 % intervals."""
    k, signs = rows[0]["k"], rows[0]["signs"]  # the first are clean images: always measured
    table = Table(title=f"Top-1 accuracy, REGroup with k = {k}, signs = {signs} [95 % interval]")
    heads = (
        "images",
        "attempted",
        "#S",
        "softmax, all",
        "REGroup, all",
        "softmax, S",
        "REGroup, S",
    )
    for head in heads:
        table.add_column(head, justify="left" if head == "images" else "right")
    for row in rows:
        if "not_run" in row:
            table.add_row(row["images"], *["not run"] * (len(heads) - 1))
            continue
        table.add_row(
            row["images"],
            str(row["attempted"]),
            "-" if row["success"] is None else str(row["success"]),
            format_accuracy(row["softmax_top1_all"]),
            format_accuracy(row["regroup_top1_all"]),
            format_accuracy(row.get("softmax_top1_S")),
            format_accuracy(row.get("regroup_top1_S")),
        )
    return table


def k_table(rows: list[dict[str, Any]], names: list[str]) -> Table:
    """Accuracy against k and signs, a column for each set of images and sign choice."""
    table = Table(title="REGroup top-1 against k and signs (attacked images: over #S), %")
    signs = list(dict.fromkeys(row["signs"] for row in rows))
    cells = {(row["k"], row["signs"]): row for row in rows}
    table.add_column("k", justify="right")
    for name in names:
        for choice in signs:
            table.add_column(f"{name}\n{choice}", justify="right", overflow="fold")
    for k in dict.fromkeys(row["k"] for row in rows):
        values = [cells[k, choice][name]["accuracy"] for name in names for choice in signs]
        table.add_row(str(k), *("-" if v is None else f"{100 * v:.1f}" for v in values))
    return table


def plot_k(
    rows: list[dict[str, Any]],
    titles: dict[str, str],
    k: int,
    path: Path,
    line: str = "the 75 % rule",
) -> None:
    """Write a PNG, and an SVG beside it, of accuracy against k: a panel for each set of images.

    `titles`: of the panels, by the name of the images in `rows`; a set that is not in them was not
    run, and its panel says so. `line`: what the dashed line at `k` is called.
    """
    plt = pyplot()
    figure, axes = plt.subplots(
        1, len(titles), figsize=(4 * len(titles), 3.4), sharey=True, squeeze=False
    )
    for axis, (name, title) in zip(axes[0], titles.items(), strict=True):
        if name in rows[0]:
            _panel(axis, rows, name, k, line)
        else:
            axis.text(0.5, 0.5, "not run", ha="center", transform=axis.transAxes)
        over = "" if name.split()[0] == "clean" else " (over #S)"
        axis.set(title=_wrapped(f"{title}{over}"), xlabel="k (last taps that vote)", ylim=(0, 102))
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("REGroup top-1, %")
    axes[0][0].legend(loc="lower left")
    save_figure(figure, path)


def _panel(axis: Any, rows: list[dict[str, Any]], name: str, k: int, line: str) -> None:
    for signs in SIGN_STYLES:
        cells = [(row["k"], row[name]) for row in rows if row["signs"] == signs]
        _line(axis, cells, signs)
    axis.axvline(k, color="#888888", linestyle="--", linewidth=1, label=line)


def plot_taps(rows: list[dict[str, Any]], k: int, threshold: float, title: str, path: Path) -> None:
    """Write a PNG, and an SVG beside it, of each tap's accuracy on correctly classified images.

    The threshold of the rule is a line, and the last `k` taps, those that vote, are shaded.
    """
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(max(5, 2 + 0.22 * len(rows)), 3.6))
    for signs in SIGN_STYLES:
        _line(axis, [(row["position"], row[signs]) for row in rows], signs)
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
    """Matplotlib without a screen; the names of an SVG's parts are the same every time."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "regroup"
    import matplotlib.pyplot as plt

    return plt


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure to `path`, a PNG, and as an SVG beside it, which names no date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    pyplot().close(figure)


def _wrapped(title: str) -> str:
    """A panel's title in lines that fit: a short one is left as it is."""
    head, *rest = title.split("\n", 1)
    return "\n".join([head, *textwrap.wrap(rest[0], 38)]) if rest else head


def _line(axis: Any, cells: list[tuple[int, dict[str, Any]]], signs: str) -> None:
    cells = [(x, cell) for x, cell in cells if cell["accuracy"] is not None]
    xs, (colour, marker) = [x for x, _ in cells], SIGN_STYLES[signs]
    values = [100 * cell["accuracy"] for _, cell in cells]
    low = [100 * cell["interval95"][0] for _, cell in cells]
    high = [100 * cell["interval95"][1] for _, cell in cells]
    axis.plot(xs, values, color=colour, marker=marker, markersize=4, label=f"signs: {signs}")
    axis.fill_between(xs, low, high, color=colour, alpha=0.1)
