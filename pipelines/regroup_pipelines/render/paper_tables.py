"""The paper's tables from a study's results, with the paper's values where they are available.

The rows of a table are the study's attacks that use one of its presets; a preset without an attack
has a row that says "not run". Published values never fill a measured cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regroup.attacks.presets import PRESETS
from regroup_pipelines.render.study_tables import NAMES, key_of
from regroup_pipelines.render.table import Cell, Table, flat_accuracy, number_cell, text_cell
from regroup_pipelines.results.base import MEASURES, NOT_RUN
from regroup_pipelines.results.whole_subset import whole_subset_notes
from regroup_pipelines.schema.paper_values import SHIPPED_VALUES, read_paper_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regroup_pipelines.json_types import FlatRow
    from regroup_pipelines.results.base import Accuracies, Accuracy
    from regroup_pipelines.results.records import (
        EvaluationResults,
        MeasuredImages,
        StudyResults,
    )
    from regroup_pipelines.schema.attacks import Attack
    from regroup_pipelines.schema.paper_values import MeasureName, PaperValue, PaperValues

NOT_AVAILABLE = "not available"
PAPER_HEADS = ["row", "protocol", "attempted", "#S", "measure", "measured", "paper", "difference"]
QUOTED_HEADS = ["defense", "row", "measure", "published", "place"]
NO_QUOTED = f"Published figures of other defenses: {NOT_AVAILABLE}."
BUDGET = "-budget"


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        name: its name in studies, such as "table-1".
        title: its title.
        prefix: prefix of its presets' names.
        over: "all" attempted samples, or "S", those whose attack succeeded.
        clean: whether clean images have a row.
    """

    name: str
    title: str
    prefix: str | tuple[str, ...]
    over: str = "S"
    clean: bool = False

    def presets(self, results: StudyResults) -> list[str]:
        """Return the rows' presets: all of the paper's protocol, and others that the study uses."""
        named = {attack.preset for attack in results.settings.attacks.values()}
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


@dataclass(frozen=True)
class PaperRow:
    """A row of one of the paper's tables.

    Attributes:
        preset: the preset, or "clean".
        images: the study's name of the images; "" where no attack uses the preset.
        attempted: readable samples; None: not run.
        success: #S; None for clean images.
        accuracies: over the samples that the table counts; None: not run.
    """

    preset: str
    images: str = ""
    attempted: int | None = None
    success: int | None = None
    accuracies: Accuracies | None = None

    def accuracy(self, measure: MeasureName) -> Accuracy | None:
        """Return one measure; None: not run."""
        return None if self.accuracies is None else self.accuracies.of(measure)


def values_of(results: StudyResults) -> PaperValues:
    """Read the published values: those that the study names, or the shipped ones.

    Raises:
        UsageError: they cannot be read.
    """
    named = results.settings.paper_values
    return read_paper_values(Path(named) if named else SHIPPED_VALUES)


def paper_table(table: PaperTable, results: StudyResults, evaluation: EvaluationResults) -> Table:
    """Return a table of the paper with measured and published values.

    Raises:
        UsageError: the published values cannot be read.
    """
    values, network = values_of(results), results.settings.model.name
    rows, download = [], []
    for row in paper_rows(table, results, evaluation):
        protocol = _protocol(row.preset, results.settings.attacks.get(row.images))
        over = "all" if row.preset == "clean" else table.over
        for measure in MEASURES:
            known = values.find(table.name, row.preset, network, measure)
            rows.append(_cells(row, protocol, measure, known))
            head: FlatRow = {
                "table": table.name, **_counts(row, protocol), "over": over,
                "measure": measure, "k": evaluation.k,
            }  # fmt: skip
            download.append({**head, **_numbers(row.accuracy(measure), known)})
    return Table(
        f"{key_of(evaluation)}-{table.name}",
        f"Table {table.name.removeprefix('table-')}: {table.title}; {network}, "
        f"{evaluation.taps} taps, k = {evaluation.k}",
        PAPER_HEADS,
        rows,
        download,
        paper_note(table, results, evaluation),
        f"tab:{table.name}",
    )


def paper_rows(
    table: PaperTable, results: StudyResults, evaluation: EvaluationResults
) -> list[PaperRow]:
    """Return the rows of a table, clean images first."""
    attacks = list(_attack_rows(table, results, evaluation))
    measured = [found for _, found in attacks if found]
    clean = [*_clean_rows(measured, evaluation)] if table.clean else []
    return clean + [row for row, _ in attacks]


def _attack_rows(
    table: PaperTable, results: StudyResults, evaluation: EvaluationResults
) -> Iterator[tuple[PaperRow, MeasuredImages | None]]:
    attacks = results.settings.attacks
    for preset in table.presets(results):
        names = [name for name, attack in attacks.items() if attack.preset == preset]
        for name in names or [""]:
            found = evaluation.row(name)
            yield _paper_row(preset, name, found, table.over), found


def _paper_row(preset: str, name: str, found: MeasuredImages | None, over: str) -> PaperRow:
    if found is None:
        return PaperRow(preset, name)
    return PaperRow(preset, name, found.attempted, found.success, found.over(over))


def _clean_rows(attacks: list[MeasuredImages], evaluation: EvaluationResults) -> Iterator[PaperRow]:
    """Yield the rows of clean images: of each whole subset, and of the dataset for other attacks.

    A whole subset has one row, or several where attacks on it lack different samples.
    """
    seen = []
    for whole in (row.whole for row in attacks if row.whole is not None):
        if whole.clean not in seen:
            seen.append(whole.clean)
            yield PaperRow("clean", whole.subset, whole.counted, None, whole.clean)
    if not seen or any(row.whole is None for row in attacks):
        yield _paper_row("clean", "clean", evaluation.row("clean"), "all")


def _protocol(preset: str, attack: Attack | None) -> str:
    """Return the protocol that the study runs, which may differ from the preset's."""
    if preset == "clean":
        return "-"
    return str((attack and attack.protocol) or PRESETS[preset].protocol)


def _cells(
    row: PaperRow, protocol: str, measure: MeasureName, known: PaperValue | None
) -> list[Cell]:
    accuracy = row.accuracy(measure)
    other = row.images not in ("", row.preset)
    label = f"{row.preset} ({row.images})" if other else row.preset
    ran = row.accuracies is not None
    counts = [number_cell(row.attempted), number_cell(row.success)] if ran else [Cell(NOT_RUN)] * 2
    return [
        text_cell(label),
        text_cell(protocol),
        *counts,
        text_cell(NAMES[measure]),
        _measured(accuracy),
        Cell(NOT_AVAILABLE)
        if known is None
        else Cell(f"{known.percent:.1f} %", known.percent / 100),
        _difference_cell(_difference(accuracy, known)),
    ]


def _measured(accuracy: Accuracy | None) -> Cell:
    if accuracy is None or accuracy.accuracy is None:
        return Cell(str(flat_accuracy(accuracy)["state"]))
    return Cell(str(accuracy), accuracy.accuracy)


def _difference_cell(difference: float | None) -> Cell:
    return Cell("-") if difference is None else Cell(f"{100 * difference:+.1f}", difference)


def _difference(accuracy: Accuracy | None, known: PaperValue | None) -> float | None:
    """Return measured minus published, as a fraction; None where either is missing."""
    if accuracy is None or accuracy.accuracy is None or known is None:
        return None
    return accuracy.accuracy - known.percent / 100


def _counts(row: PaperRow, protocol: str) -> FlatRow:
    return {
        "row": row.preset,
        "images": row.images,
        "protocol": protocol,
        "attempted": "" if row.attempted is None else row.attempted,
        "success": "" if row.success is None else row.success,
    }


def _numbers(accuracy: Accuracy | None, known: PaperValue | None) -> FlatRow:
    """Return the CSV columns of one measure, in [0, 1]; `state` explains an empty `accuracy`."""
    difference = _difference(accuracy, known)
    return {
        **flat_accuracy(accuracy),
        "paper": "" if known is None else known.percent / 100,
        "difference": "" if difference is None else difference,
        "place": "" if known is None else known.place,
    }


def quoted_table(results: StudyResults, evaluation: EvaluationResults) -> Table | None:
    """Return the table of published accuracies of other defenses; None where there are none."""
    quoted = [
        [f"{q.defense} (quoted)", q.row, q.measure, f"{q.percent:.1f} %", q.place]
        for q in values_of(results).quoted
    ]
    if not quoted:
        return None
    return Table(
        f"{key_of(evaluation)}-quoted",
        "Other defenses",
        QUOTED_HEADS,
        [[text_cell(text) for text in line] for line in quoted],
        [dict(zip(QUOTED_HEADS, line, strict=True)) for line in quoted],
        "Published figures of other defenses, quoted, not measured here.",
        "tab:quoted",
    )


def paper_note(table: PaperTable, results: StudyResults, evaluation: EvaluationResults) -> str:
    """Say how to read a table: its protocols, and which images its rows count."""
    rows = [found for _, found in _attack_rows(table, results, evaluation) if found]
    whole = [row for row in rows if row.whole is not None] if table.over == "all" else []
    clean = _clean_note(rows, whole) if table.clean else ""
    note = (
        f"Accuracy over {_over(table, rows, whole)}; brackets: 95 % Wilson intervals; difference: "
        "measured minus paper, in percentage points. Protocol minimal: the smallest perturbation "
        f"that the attack finds; budget: full steps in a fixed ball.{clean}"
    )
    lines = whole_subset_notes(evaluation.accuracy) if table.over == "all" else ()
    return " ".join([note, *lines])


def _over(table: PaperTable, rows: list[MeasuredImages], whole: list[MeasuredImages]) -> str:
    if table.over == "S":
        return "S, the samples whose attack succeeded"
    if not whole:
        return "all attempted samples"
    subset = "all images of the attack's subset, attempted or not"
    return subset if len(whole) == len(rows) else f"{subset}, or all attempted samples (see below)"


def _clean_note(rows: list[MeasuredImages], whole: list[MeasuredImages]) -> str:
    """Say whether the clean row and the attacks' rows count the same images."""
    same = " The clean row of a subset and the row of an attack on it count the same images."
    others = [row.images for row in rows if row.whole is None]
    named = f" of {', '.join(others)}" if whole else ""
    other = (
        f" The clean row{' of clean' if whole else ''} counts every image of the dataset; an "
        f"attack's row{named} only those that it attempted, which are correctly classified: the "
        "two rows count different images."
    )
    return (same if whole else "") + (other if others or not whole else "")
