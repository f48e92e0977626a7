"""Tables on a terminal and the plot of accuracy against k."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path


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
    k, signs = rows[0]["k"], rows[0]["signs"]
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


def plot_k(rows: list[dict[str, Any]], names: list[str], k: int, path: Path) -> None:
    """Write a PNG of accuracy against k: a panel for each set of images, a line a sign choice."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(names), figsize=(4 * len(names), 3.4), sharey=True, squeeze=False
    )
    # Okabe-Ito colours: told apart by colour-blind readers.
    styles = {"both": ("#000000", "o"), "positive": ("#0072B2", "^"), "negative": ("#D55E00", "v")}
    for axis, name in zip(axes[0], names, strict=True):
        for signs, (colour, marker) in styles.items():
            _line(axis, [r for r in rows if r["signs"] == signs], name, signs, colour, marker)
        axis.axvline(k, color="#888888", linestyle="--", linewidth=1, label="the 75 % rule")
        over = "" if name == "clean" else " (over #S)"
        axis.set(title=f"{name}{over}", xlabel="k (last taps that vote)", ylim=(0, 102))
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("REGroup top-1, %")
    axes[0][0].legend(loc="lower left")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _line(
    axis: Any, rows: list[dict[str, Any]], name: str, signs: str, colour: str, marker: str
) -> None:
    cells = [(row["k"], row[name]) for row in rows if row[name]["accuracy"] is not None]
    ks = [k for k, _ in cells]
    values = [100 * cell["accuracy"] for _, cell in cells]
    low = [100 * cell["interval95"][0] for _, cell in cells]
    high = [100 * cell["interval95"][1] for _, cell in cells]
    axis.plot(ks, values, color=colour, marker=marker, markersize=4, label=f"signs: {signs}")
    axis.fill_between(ks, low, high, color=colour, alpha=0.1)
