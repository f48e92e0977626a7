"""Tables as pages show them: cells to read, values to sort by, and the rows of their downloads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regroup_pipelines.render.attack_table import HEADS, attack_cells, attack_rows, attacks_of
from regroup_pipelines.render.study_files import accuracy_rows, k_rows, taps_rows
from regroup_pipelines.render.terminal import format_accuracy
from regroup_pipelines.results.whole_subset import whole_lines
from regroup_store.kinds.votes import SIGN_CHOICES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regroup_pipelines.report_pages.evaluation import Evaluation, Row

NOT_RUN = "not run"


@dataclass(frozen=True)
class Cell:
    """What a cell says, what it sorts by (None: last), and where it leads."""

    text: str
    sort: float | str | None = None
    href: str | None = None


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        key: names it in links and files.
        heads: of the columns; the first is the rows' own.
        download: the rows of its CSV and JSON files, a dict each with the same keys.
        note: how to read it.
        latex: the table as LaTeX, where it can be had so.
    """

    key: str
    title: str
    heads: list[str]
    rows: list[list[Cell]]
    download: list[Row] = field(default_factory=list)
    note: str = ""
    latex: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Whether a column holds numbers: it is set to the right."""
        return [
            any(isinstance(row[column].sort, int | float) for row in self.rows)
            for column in range(len(self.heads))
        ]


def text_cell(value: object, href: str | None = None) -> Cell:
    """A cell that sorts as it reads."""
    return Cell(str(value), str(value), href)


def number_cell(value: float | None, digits: int = 4) -> Cell:
    """A number, or "-" where there is none."""
    if value is None:
        return Cell("-")
    return Cell(f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}", value)


def accuracy_cell(cell: Row | None) -> Cell:
    """`57.0 % [52.1, 61.8]`, sorted by the share."""
    return Cell(format_accuracy(cell), cell["accuracy"] if cell else None)


def study_tables(evaluation: Evaluation) -> list[Table]:
    """Accuracy, every k, every tap and the attacks."""
    return [
        accuracy_table(evaluation),
        k_table(evaluation),
        taps_table(evaluation),
        *([attacks_table(evaluation)] if attacks_of(evaluation.study.results) else []),
    ]


def accuracy_table(evaluation: Evaluation) -> Table:
    """Softmax and REGroup, over all attempted or a whole subset, and over S; top-1 and top-5."""
    results, row = evaluation.study.results, evaluation.row
    heads = ["images", "top", "attempted", "failed rows", "#S"]
    heads += [f"{measure}, {over}" for over in ("all", "S") for measure in ("softmax", "REGroup")]
    return Table(
        f"{evaluation.key}-accuracy",
        f"Accuracy at k = {evaluation.k}, signs {evaluation.signs}",
        heads,
        [_accuracy_cells(each, top) for each in row["accuracy"] for top in (1, 5)],
        list(accuracy_rows(results, row)),
        " ".join(whole_lines(row["accuracy"])),
    )


def _accuracy_cells(row: Row, top: int) -> list[Cell]:
    if "not_run" in row:
        return [text_cell(row["images"]), number_cell(top), *[Cell(NOT_RUN)] * 7]
    counts = [number_cell(row[name]) for name in ("attempted", "failed", "success")]
    measured = [
        accuracy_cell(row.get(f"{measure}_top{top}_{over}"))
        for over in ("all", "S")
        for measure in ("softmax", "regroup")
    ]
    return [text_cell(row["images"]), number_cell(top), *counts, *measured]


def k_table(evaluation: Evaluation) -> Table:
    """REGroup's top-1 at every k, for every sign choice."""
    results, row = evaluation.study.results, evaluation.row
    names = [images["images"] for images in results["images"]]
    rows = [
        [number_cell(each["k"]), text_cell(each["signs"]), *(_k_cell(each, name) for name in names)]
        for each in row["accuracy_against_k"]
    ]
    return Table(
        f"{evaluation.key}-k",
        "REGroup top-1 against k, the number of last taps that vote",
        ["k", "signs", *names],
        rows,
        list(k_rows(results, row)),
        "Attacked images: over S. Clean images: over all.",
    )


def _k_cell(row: Row, name: str) -> Cell:
    return accuracy_cell(row[name]) if name in row else Cell(NOT_RUN)


def taps_table(evaluation: Evaluation) -> Table:
    """Each tap alone on the correctly classified clean images, and which of them vote."""
    results, row = evaluation.study.results, evaluation.row
    threshold = row["rule"]["threshold"]
    reaches = f"reaches {100 * threshold:g} %"
    rows = [
        [
            number_cell(tap["position"]),
            text_cell(tap["tap"]),
            *(accuracy_cell(tap[signs]) for signs in SIGN_CHOICES),
            text_cell("yes" if (tap["both"]["accuracy"] or 0) >= threshold else "no"),
            text_cell("yes" if tap["votes"] else "no"),
        ]
        for tap in row["tap_accuracy"]
    ]
    heads = ["position", "tap", *SIGN_CHOICES, reaches, f"votes at k = {evaluation.k}"]
    title = "Each tap alone, top-1 on the correctly classified clean images"
    return Table(f"{evaluation.key}-taps", title, heads, rows, list(taps_rows(results, row)))


def attacks_table(evaluation: Evaluation) -> Table:
    """What each attack achieved and what it took."""
    results, row = evaluation.study.results, evaluation.row
    accuracies = {each["images"]: each for each in row["accuracy"]}
    rows = [_attack_cells(images, accuracies[images["images"]]) for images in attacks_of(results)]
    return Table(
        f"{evaluation.key}-attacks",
        f"Attacks, REGroup at k = {evaluation.k}",
        HEADS,
        rows,
        list(attack_rows(results, row)),
        "Queries (forward passes), backward passes and seconds are means over the attempted "
        "samples; distances are medians over S, in pixel units of [0, 1]. "
        + " ".join(whole_lines(row["accuracy"])),
    )


def _attack_cells(images: Row, accuracy: Row) -> list[Cell]:
    """The cells of the study's own table, with what they sort by."""
    texts = attack_cells(images, accuracy)
    if "not_run" in images or "not_run" in accuracy:
        return [text_cell(texts[0]), *map(Cell, texts[1:])]
    attempted = images["attempted"]
    numbers = [
        attempted,
        images["success"],
        images["success"] / attempted if attempted else None,
        *(images[name] for name in ("success_8bit", "median_l2", "median_linf")),
        *(images[f"mean_{name}"] for name in ("queries", "backward_passes", "seconds")),
        *((accuracy.get(f"regroup_top1_{over}") or {}).get("accuracy") for over in ("S", "all")),
    ]
    cells = [Cell(text, value) for text, value in zip(texts[1:], numbers, strict=True)]
    return [text_cell(texts[0]), *cells]


def headline_table(evaluations: Iterable[Evaluation]) -> Table:
    """The first numbers of each evaluation: top-1, all attempted and S."""
    heads = ["evaluation", "k", "images", "attempted", "#S", "softmax, all", "REGroup, all"]
    rows = [
        [
            text_cell(evaluation.title),
            number_cell(evaluation.k),
            text_cell(each["images"]),
            *_headline(each),
        ]
        for evaluation in evaluations
        for each in evaluation.row["accuracy"]
    ]
    note = "Top-1 with 95 % Wilson intervals. REGroup, S: over the images that fool softmax."
    return Table("headline", "Headline numbers", [*heads, "REGroup, S"], rows, note=note)


def _headline(row: Row) -> list[Cell]:
    if "not_run" in row:
        return [Cell(NOT_RUN)] * 5
    names = ("softmax_top1_all", "regroup_top1_all", "regroup_top1_S")
    counts = [number_cell(row["attempted"]), number_cell(row["success"])]
    return [*counts, *(accuracy_cell(row.get(name)) for name in names)]
