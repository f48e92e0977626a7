"""Values that the paper reports, read from a separate file and shown next to measured ones.

The shipped `paper_values.toml` documents the format and holds no values.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from regroup_pipelines.schema.attacks import STRICT, Text, keys_of
from regroup_pipelines.schema.spelling import suggestion
from regroup_pipelines.schema.toml_file import TomlFile

if TYPE_CHECKING:
    from regroup_pipelines.errors import UsageError

SHIPPED_VALUES = Path(__file__).with_name("paper_values.toml")
Percent = Annotated[float, Field(ge=0, le=100)]
PaperTableName = Literal["table-1", "table-2", "table-3", "table-4", "table-5"]
MeasureName = Literal["softmax_top1", "softmax_top5", "regroup_top1", "regroup_top5"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PaperValue:
    """One accuracy that the paper reports.

    Attributes:
        table: the table it is in.
        row: the preset, or "clean".
        network: `model.name` of the study.
        measure: which accuracy.
        percent: its value in percent.
        place: where in the paper it is printed.
    """

    table: PaperTableName
    row: Text
    network: Text
    measure: MeasureName
    percent: Percent
    place: Text


@dataclass(frozen=True, kw_only=True, config=STRICT)
class QuotedValue:
    """One published accuracy of another defense, in percent."""

    defense: Text
    row: Text
    measure: Literal["top1", "top5"]
    percent: Percent
    place: Text


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PaperTime:
    """One inference time of the paper's table 6, in seconds per image."""

    network: Text
    device: Literal["cpu", "cuda"]
    batch: Literal["1", "n"]
    measure: Literal["softmax", "regroup"]
    seconds: Annotated[float, Field(gt=0)]
    place: Text


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PaperValues:
    """All published values of one file: the paper's, those of other defenses, and times."""

    values: tuple[PaperValue, ...] = ()
    quoted: tuple[QuotedValue, ...] = ()
    times: tuple[PaperTime, ...] = ()

    def find_time(self, network: str, device: str, batch: str, measure: str) -> PaperTime | None:
        """Return the entry for a cell of table 6, or None."""
        asked = (network, device, batch, measure)
        same = (t for t in self.times if (t.network, t.device, t.batch, t.measure) == asked)
        return next(same, None)

    def find(self, table: str, row: str, network: str, measure: str) -> PaperValue | None:
        """Return the entry for a cell of tables 1 to 5, or None."""
        asked = (table, row, network, measure)
        same = (v for v in self.values if (v.table, v.row, v.network, v.measure) == asked)
        return next(same, None)


def read_paper_values(path: Path = SHIPPED_VALUES) -> PaperValues:
    """Read and check the values in `path`.

    Raises:
        UsageError: the file cannot be read, or an entry is invalid; the message names it and its
            line.
    """
    file = TomlFile.read(path)
    try:
        values = TypeAdapter(PaperValues).validate_json(json.dumps(file.tables, default=str))
    except ValidationError as error:
        raise _mistake(file, error) from None
    _check_single(values, file)
    return values


def _mistake(file: TomlFile, error: ValidationError) -> UsageError:
    """Return the first mistake; unknown keys come first, since others may follow from them."""
    unknown = "unexpected_keyword_argument"
    first = min(error.errors(), key=lambda each: each["type"] != unknown)
    path = [str(part) for part in first["loc"]]
    if first["type"] == unknown:
        table = {"values": PaperValue, "quoted": QuotedValue, "times": PaperTime}.get(
            path[0], PaperValues
        )
        return file.mistake(path, f"there is no key {suggestion(path[-1], keys_of(table))}")
    if first["type"].startswith("missing"):
        return file.mistake(path[:-1], f"the key {path[-1]} is missing")
    return file.mistake(path, f"{first['msg'][:1].lower()}{first['msg'][1:]}")


def _check_single(values: PaperValues, file: TomlFile) -> None:
    listed: dict[str, list[tuple[str, ...]]] = {
        "values": [(v.table, v.row, v.network, v.measure) for v in values.values],
        "times": [(t.network, t.device, t.batch, t.measure) for t in values.times],
    }
    for name, cells in listed.items():
        for number, cell in enumerate(cells):
            if cell in cells[:number]:
                problem = f"a second value of {', '.join(cell)}"
                raise file.mistake((name, str(number)), problem)
