"""The paper's tables from a study's results, beside the paper's values where those are at hand.

A table's rows are the study's attacks that name one of its presets; a preset that no attack names
is a row that says "not run". A measured cell is never filled from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regroup.attacks.presets import PRESETS
from regroup_pipelines.render.terminal import format_accuracy
from regroup_pipelines.schema.paper_values import SHIPPED, read_paper_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regroup_pipelines.schema.paper_values import PaperValues

Row = dict[str, Any]
NOT_RUN, NOT_AT_HAND = "not run", "not at hand"
MEASURES = ("softmax_top1", "softmax_top5", "regroup_top1", "regroup_top5")
NAMES = {
    "softmax_top1": "softmax top-1",
    "softmax_top5": "softmax top-5",
    "regroup_top1": "REGroup top-1",
    "regroup_top5": "REGroup top-5",
}
HEADS = ["row", "protocol", "attempted", "#S", "measure", "measured", "paper", "difference"]
BUDGET = "-budget"


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: `prefix` of its presets, and over which samples it counts.

    `over`: "all" attempted, or "S", those whose attack succeeded.
    """

    name: str
    title: str
    prefix: str | tuple[str, ...]
    over: str = "S"
    clean: bool = False

    def keys(self, results: Row) -> list[str]:
        """Presets of the rows: all of the paper's protocol, and others that the study has."""
        named = {a["preset"] for a in results["settings"]["attacks"].values()}
        mine = [name for name in PRESETS if name.startswith(self.prefix)]
        return [name for name in mine if not name.endswith(BUDGET) or name in named]


PAPER_TABLES = {
    table.name: table
    for table in (
        PaperTable("table-1", "clean images and PGD 16/255", "table1-", "all", clean=True),
        PaperTable("table-2", "un-targeted attacks", ("table2-", "v10c-")),
        PaperTable("table-3", "targeted attacks", "table3-"),
        PaperTable("table-4", "attacks with a confidence of at least 90 %", "table4-"),
        PaperTable("table-5", "SPSA, 4/255 and 8/255", "table5-"),
    )
}


def values_of(results: Row) -> PaperValues:
    """The paper's values that the study names, or those that are shipped; raises `UsageError`."""
    named = results["settings"]["paper_values"]
    return read_paper_values(Path(named) if named else SHIPPED)


def paper_rows(table: PaperTable, results: Row, evaluation: Row) -> Iterator[Row]:
    """A row a number; `accuracy` is empty where `state` says why; `paper` in [0, 1] as well."""
    values, network = values_of(results), results["settings"]["model"]["name"]
    for preset, images, measured in _rows(table, results, evaluation):
        over = "all" if preset == "clean" else table.over
        for measure in MEASURES:
            cell = measured.get(f"{measure}_{over}")
            known = values.find(table.name, preset, network, measure)
            yield {
                "table": table.name,
                "row": preset,
                "images": images or "",
                "protocol": _protocol(preset, results["settings"]["attacks"].get(images)),
                "attempted": measured.get("attempted", ""),
                "success": "" if measured.get("success") is None else measured["success"],
                "over": over,
                "measure": measure,
                "k": evaluation["k"],
                **_numbers(cell),
                "paper": "" if known is None else known.percent / 100,
                "difference": _difference(cell, known.percent if known else None),
                "place": "" if known is None else known.place,
            }


def _rows(
    table: PaperTable, results: Row, evaluation: Row
) -> Iterator[tuple[str, str | None, Row]]:
    """Preset, name of the images and what was measured of every row.

    None: no attack of the study names it; an empty measure: not run.
    """
    attacks = list(_attack_rows(table, results, evaluation))
    yield from _clean_rows(attacks, evaluation) if table.clean else ()
    yield from attacks


def _attack_rows(
    table: PaperTable, results: Row, evaluation: Row
) -> Iterator[tuple[str, str | None, Row]]:
    attacks = results["settings"]["attacks"]
    for preset in table.keys(results):
        names = [name for name, attack in attacks.items() if attack["preset"] == preset]
        for name in names or [None]:
            yield preset, name, _measured(evaluation, name)


def _clean_rows(
    attacks: list[tuple[str, str | None, Row]], evaluation: Row
) -> Iterator[tuple[str, str | None, Row]]:
    """The images of each whole subset as they are; and those of the dataset beside other attacks.

    A whole subset has one row, or, where attacks lack different samples of it, one for each.
    """
    told = []
    for whole in (row["whole"] for _, _, row in attacks if "whole" in row):
        if whole["clean"] not in told:
            told.append(whole["clean"])
            yield "clean", whole["subset"], {**whole["clean"], "attempted": whole["counted"]}
    if not told or any(row and "whole" not in row for _, _, row in attacks):
        yield "clean", "clean", _measured(evaluation, "clean")


def _measured(evaluation: Row, images: str | None) -> Row:
    rows = [row for row in evaluation["accuracy"] if row["images"] == images]
    return rows[0] if rows and "not_run" not in rows[0] else {}


def _protocol(preset: str, attack: Row | None) -> str:
    """What the study runs, which may differ from the preset."""
    if preset == "clean":
        return "-"
    return str((attack and attack["protocol"]) or PRESETS[preset].protocol)


def _numbers(cell: Row | None) -> Row:
    empty = {"correct": "", "total": "", "accuracy": "", "low": "", "high": ""}
    if cell is None:
        return {"state": NOT_RUN, **empty}
    if not cell["total"]:
        return {"state": "no samples", **empty, "correct": 0, "total": 0}
    low, high = cell["interval95"]
    counts = {"correct": cell["correct"], "total": cell["total"]}
    return {"state": "measured", **counts, "accuracy": cell["accuracy"], "low": low, "high": high}


def _difference(cell: Row | None, percent: float | None) -> float | str:
    """Measured less the paper's, as a fraction; empty where either is not there."""
    if cell is None or cell["accuracy"] is None or percent is None:
        return ""
    return float(cell["accuracy"]) - percent / 100


def paper_cells(table: PaperTable, results: Row, evaluation: Row) -> list[list[str]]:
    """The table for people, a line a number."""
    return [_cells(row) for row in paper_rows(table, results, evaluation)]


def _cells(row: Row) -> list[str]:
    ran = row["state"] != NOT_RUN
    success = "-" if row["success"] == "" else str(row["success"])
    counts = [str(row["attempted"]), success] if ran else [NOT_RUN] * 2
    interval = {"accuracy": row["accuracy"], "interval95": (row["low"], row["high"])}
    shown = format_accuracy(interval) if row["state"] == "measured" else row["state"]
    paper = NOT_AT_HAND if row["paper"] == "" else f"{100 * row['paper']:.1f} %"
    difference = "-" if row["difference"] == "" else f"{100 * row['difference']:+.1f}"
    label = (
        f"{row['row']} ({row['images']})" if row["images"] not in ("", row["row"]) else row["row"]
    )
    return [label, row["protocol"], *counts, NAMES[row["measure"]], shown, paper, difference]


def quoted_cells(results: Row) -> list[list[str]]:
    """Published figures of other defenses: name, row, measure, value, place."""
    return [
        [f"{q.defense} (quoted)", q.row, q.measure, f"{q.percent:.1f} %", q.place]
        for q in values_of(results).quoted
    ]


QUOTED_HEADS = ["defense", "row", "measure", "published", "place"]


def paper_title(table: PaperTable, results: Row, evaluation: Row) -> str:
    """The title: which table, of which network, taps and k."""
    network = results["settings"]["model"]["name"]
    number, k = table.name.removeprefix("table-"), evaluation["k"]
    return f"Table {number}: {table.title}; {network}, {evaluation['taps']} taps, k = {k}"


def paper_note(table: PaperTable, results: Row, evaluation: Row) -> str:
    """How to read the numbers, with the protocols."""
    rows = [row for _, _, row in _attack_rows(table, results, evaluation) if row]
    whole = [row for row in rows if "whole" in row] if table.over == "all" else []
    clean = _clean_note(rows, whole) if table.clean else ""
    return (
        f"Accuracy over {_over(table, rows, whole)}; brackets: 95 % Wilson intervals; difference: "
        "measured less paper, in percentage points. Protocol minimal: the smallest perturbation "
        f"that the attack finds; budget: full steps in a fixed ball.{clean}"
    )


def _over(table: PaperTable, rows: list[Row], whole: list[Row]) -> str:
    if table.over == "S":
        return "S, the samples whose attack succeeded"
    if not whole:
        return "all attempted samples"
    subset = "all images of the attack's subset, attempted or not"
    return subset if len(whole) == len(rows) else f"{subset}, or all attempted samples (see below)"


def _clean_note(rows: list[Row], whole: list[Row]) -> str:
    """Which images the rows count, and whether they are the same."""
    same = " The clean row of a subset and the row of an attack on it count the same images."
    others = [row["images"] for row in rows if "whole" not in row]
    named = f" of {', '.join(others)}" if whole else ""
    other = (
        f" The clean row{' of clean' if whole else ''} counts every image of the dataset; an "
        f"attack's row{named} only those that it attempted, which are correctly classified: the "
        "two are not of the same images."
    )
    return (same if whole else "") + (other if others or not whole else "")
