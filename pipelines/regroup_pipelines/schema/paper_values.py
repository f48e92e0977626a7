"""Values that the paper reports, from a file of their own: shown beside measurements, never as one.

The shipped `paper_values.toml` says what an entry looks like and holds none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from regroup_pipelines.schema.attacks import STRICT, Text, keys_of, near
from regroup_pipelines.schema.toml_file import TomlFile

if TYPE_CHECKING:
    from regroup_pipelines.errors import UsageError

SHIPPED_VALUES = Path(__file__).with_name("paper_values.toml")
Percent = Annotated[float, Field(ge=0, le=100)]
PaperTableName = Literal["table-1", "table-2", "table-3", "table-4", "table-5"]
MeasureName = Literal["softmax_top1", "softmax_top5", "regroup_top1", "regroup_top5"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PaperValue:
    """One number of the paper, in percent; `place`: where it stands there."""

    table: PaperTableName
    row: Text
    network: Text
    measure: MeasureName
    percent: Percent
    place: Text


@dataclass(frozen=True, kw_only=True, config=STRICT)
class QuotedValue:
    """One published number of another defense, in percent."""

    defense: Text
    row: Text
    measure: Literal["top1", "top5"]
    percent: Percent
    place: Text


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PaperTime:
    """One number of the paper's table of inference times, in seconds an image."""

    network: Text
    device: Literal["cpu", "cuda"]
    batch: Literal["1", "n"]
    measure: Literal["softmax", "regroup"]
    seconds: Annotated[float, Field(gt=0)]
    place: Text


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PaperValues:
    """All that is at hand."""

    values: tuple[PaperValue, ...] = ()
    quoted: tuple[QuotedValue, ...] = ()
    times: tuple[PaperTime, ...] = ()

    def find_time(self, network: str, device: str, batch: str, measure: str) -> PaperTime | None:
        """The entry of a cell of table 6, or None."""
        asked = (network, device, batch, measure)
        same = (t for t in self.times if (t.network, t.device, t.batch, t.measure) == asked)
        return next(same, None)

    def find(self, table: str, row: str, network: str, measure: str) -> PaperValue | None:
        """The entry of a cell, or None."""
        asked = (table, row, network, measure)
        same = (v for v in self.values if (v.table, v.row, v.network, v.measure) == asked)
        return next(same, None)


def read_paper_values(path: Path = SHIPPED_VALUES) -> PaperValues:
    """The values in `path`.

    Raises:
        UsageError: it cannot be read, or an entry is not what it should be: the sentence names it
            and its line.
    """
    file = TomlFile.read(path)
    try:
        values = TypeAdapter(PaperValues).validate_json(json.dumps(file.tables, default=str))
    except ValidationError as error:
        raise _mistake(file, error) from None
    _check_single(values, file)
    return values


def _mistake(file: TomlFile, error: ValidationError) -> UsageError:
    """The first mistake, unknown keys before what else may follow from them."""
    unknown = "unexpected_keyword_argument"
    first = min(error.errors(), key=lambda each: each["type"] != unknown)
    path = [str(part) for part in first["loc"]]
    if first["type"] == unknown:
        table = {"values": PaperValue, "quoted": QuotedValue, "times": PaperTime}.get(
            path[0], PaperValues
        )
        return file.mistake(path, f"there is no key {near(path[-1], keys_of(table))}")
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
                told = f"a second value of {', '.join(cell)}"
                raise file.mistake((name, str(number)), told)
