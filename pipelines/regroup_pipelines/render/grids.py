"""Accuracy tables as they stand on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from regroup_pipelines.results.base import NOT_RUN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from regroup_pipelines.results.base import Accuracy
    from regroup_pipelines.results.records import AccuracyRow, KRow


def _text(accuracy: Accuracy | None) -> str:
    return "-" if accuracy is None else str(accuracy)


def accuracy_grid(rows: Sequence[AccuracyRow]) -> Table:
    """Return softmax's and REGroup's top-1, over all attempted and over S, with 95 % intervals."""
    first = next(row for row in rows if row.kind == "measured")  # clean images always are
    table = Table(
        title=f"Top-1 accuracy, REGroup with k = {first.k}, signs = {first.signs} [95 % interval]"
    )
    measured = ("softmax, all", "REGroup, all", "softmax, S", "REGroup, S")
    heads = ("images", "attempted", "#S", *measured)
    for head in heads:
        table.add_column(head, justify="left" if head == "images" else "right")
    for row in rows:
        table.add_row(row.images, *_accuracy_texts(row))
    return table


def _accuracy_texts(row: AccuracyRow) -> list[str]:
    if row.kind == "not run":
        return [NOT_RUN] * 6
    return [
        str(row.attempted),
        "-" if row.success is None else str(row.success),
        _text(row.accuracy("all", "softmax_top1")),
        _text(row.accuracy("all", "regroup_top1")),
        _text(row.accuracy("S", "softmax_top1")),
        _text(row.accuracy("S", "regroup_top1")),
    ]


def k_grid(rows: Sequence[KRow], names: Iterable[str]) -> Table:
    """Return accuracy against k, with one column per set of images and sign choice."""
    names = list(names)
    table = Table(title="REGroup top-1 against k and signs (attacked images: over #S), %")
    signs = list(dict.fromkeys(row.signs for row in rows))
    cells = {(row.k, row.signs): row.accuracy for row in rows}
    table.add_column("k", justify="right")
    for name in names:
        for choice in signs:
            table.add_column(f"{name}\n{choice}", justify="right", overflow="fold")
    for k in dict.fromkeys(row.k for row in rows):
        values = [cells[k, choice][name].accuracy for name in names for choice in signs]
        table.add_row(str(k), *("-" if v is None else f"{100 * v:.1f}" for v in values))
    return table
