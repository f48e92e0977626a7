"""docs/results-schema.md names every record of the results with exactly its keys."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest

from regroup_pipelines.results.records import RESULTS_VERSION, StudyResults

PAGE = (Path(__file__).parents[2] / "docs" / "results-schema.md").read_text()
# Keys of a study file: docs/studies.md.
SETTINGS = {
    "Study", "Model", "DeclaredBank", "Subset", "Attack", "Sweep", "Scoring", "Report"
}  # fmt: skip


@functools.cache  # a second each time
def schema() -> dict[str, Any]:
    """The JSON Schema of every record by its name, as it is written."""
    whole: dict[str, Any] = StudyResults.model_json_schema(mode="serialization")
    records = {**whole["$defs"], "StudyResults": whole}
    return {name: each for name, each in records.items() if name not in SETTINGS}


@functools.cache
def documented() -> dict[str, set[str]]:
    """The keys in the table below each heading that names a record."""
    parts = re.split(r"^#{2,3} (\w+)\n", PAGE, flags=re.MULTILINE)[1:]
    tables = dict(zip(parts[::2], parts[1::2], strict=True))
    rows = {
        name: re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE) for name, text in tables.items()
    }
    return {
        name: {key for row in found for key in re.findall(r"`(\w+)`", row)}
        for name, found in rows.items()
        if name in schema()
    }


@pytest.mark.parametrize("record", sorted(schema()))
def test_every_key_is_documented_and_no_other(record: str) -> None:
    assert documented().get(record) == set(schema()[record]["properties"])


def test_the_page_is_of_this_version() -> None:
    assert PAGE.startswith(f"# The schema of results.json, version {RESULTS_VERSION}\n")
    assert schema()["StudyResults"]["properties"]["schema_version"]["const"] == RESULTS_VERSION


def test_kinds_are_those_of_the_records() -> None:
    """The value of `kind` in each table is the record's own."""
    for name, record in schema().items():
        kind = record["properties"].get("kind")
        if kind is not None:
            section = re.split(rf"^### {name}\n", PAGE, flags=re.MULTILINE)[1].split("\n### ")[0]
            assert f'| `kind` | `"{kind["const"]}"` |' in section, name
