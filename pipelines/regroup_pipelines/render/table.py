"""The table that Markdown, CSV, JSON, LaTeX and the pages of a report are rendered from.

It has cells for people and rows for programs.
"""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regroup_pipelines.render.escapes import csv_value, markdown_text
from regroup_pipelines.render.latex import latex_table
from regroup_pipelines.results.base import NOT_RUN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regroup_pipelines.json_types import FlatRow
    from regroup_pipelines.results.base import Accuracy


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: the text to show.
        sort: the value to sort by; None comes last.
        href: the link on a page.
    """

    text: str
    sort: float | str | None = None
    href: str | None = None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        key: its name in links and files.
        title: its title.
        heads: heads of the columns; the first column names the rows.
        rows: the cells.
        download: the rows of its CSV and JSON files, all with the same keys.
        note: how to read it.
        label: LaTeX label; "": no LaTeX version.
    """

    key: str
    title: str
    heads: list[str]
    rows: list[list[Cell]]
    download: list[FlatRow] = field(default_factory=list)
    note: str = ""
    label: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers, which are right-aligned."""
        return [
            any(isinstance(row[column].sort, int | float) for row in self.rows)
            for column in range(len(self.heads))
        ]

    @property
    def texts(self) -> list[list[str]]:
        """The texts of the cells."""
        return [[cell.text for cell in row] for row in self.rows]

    @property
    def markdown(self) -> str:
        """The table as Markdown; the first column is left-aligned, all others right-aligned."""
        lines = [self.heads, ["---"] + ["---:"] * (len(self.heads) - 1), *self.texts]
        return "".join(f"| {' | '.join(map(markdown_text, line))} |\n" for line in lines)

    @property
    def csv(self) -> str:
        """The rows of the download as CSV."""
        return csv_text(self.download)

    @property
    def json(self) -> str:
        """The rows of the download as JSON."""
        return json.dumps(self.download, indent=1, ensure_ascii=False) + "\n"

    @property
    def latex(self) -> str:
        """The table as LaTeX, or "" where it has no label."""
        if not self.label:
            return ""
        return latex_table(self.heads, self.texts, self.title, self.note, self.label)


def csv_text(rows: Sequence[FlatRow]) -> str:
    """Format rows with the same keys as CSV; "" where there are none."""
    text = io.StringIO()
    if rows:
        writer = csv.writer(text, lineterminator="\n")
        keys = list(rows[0])
        writer.writerow([_quotable(csv_value(key)) for key in keys])
        writer.writerows([[_quotable(csv_value(row[key])) for key in keys] for row in rows])
    return text.getvalue()


def _quotable(value: object) -> object:
    """Return `value` with newlines for carriage returns, which Python's writer does not quote."""
    return re.sub("\r\n?", "\n", value) if isinstance(value, str) else value


def text_cell(value: object, href: str | None = None) -> Cell:
    """Return a cell that is sorted by its text."""
    return Cell(str(value), str(value), href)


def number_cell(value: float | None, digits: int = 4) -> Cell:
    """Return a cell with a number, or "-" for None."""
    if value is None:
        return Cell("-")
    return Cell(f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}", value)


def accuracy_cell(accuracy: Accuracy | None) -> Cell:
    """Return a cell such as `57.0 % [52.1, 61.8]`, sorted by the accuracy; "-" for None."""
    return Cell("-") if accuracy is None else Cell(str(accuracy), accuracy.accuracy)


def flat_accuracy(accuracy: Accuracy | None) -> FlatRow:
    """Return the CSV columns of an accuracy; `state` explains an empty `accuracy`."""
    empty: FlatRow = {"correct": "", "total": "", "accuracy": "", "low": "", "high": ""}
    if accuracy is None:
        return {"state": NOT_RUN, **empty}
    counts: FlatRow = {"correct": accuracy.correct, "total": accuracy.total}
    if accuracy.accuracy is None:
        return {"state": "no samples", **empty, **counts}
    low, high = accuracy.interval95
    return {
        "state": "measured", **counts, "accuracy": accuracy.accuracy, "low": low, "high": high,
    }  # fmt: skip
