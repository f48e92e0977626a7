"""Files of the paper's values: what is shipped, and every mistake with its line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from regroup_pipelines.errors import UsageError
from regroup_pipelines.schema.loading import find_study, load_study
from regroup_pipelines.schema.paper_values import SHIPPED_VALUES, read_paper_values
from tests.pipelines.colours import paper_values

VALUES = paper_values("A_defense & 50 %")


def test_the_shipped_file_holds_no_value() -> None:
    values = read_paper_values(SHIPPED_VALUES)
    assert (values.values, values.quoted) == ((), ())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("percent = 12.5", "percent = 120.0", ", line 7: values.0.percent: "),
        ("percent = 12.5", 'percent = "12.5"', ", line 7: values.0.percent: "),
        ("table-2", "table-7", ", line 3: values.0.table: "),
        (
            "place",
            "plase",
            ", line 8: values.0.plase: there is no key 'plase': did you mean place?",
        ),
        ("percent = 33.0\n", "", ", line 10: quoted.0: the key percent is missing"),
        ("percent = 33.0", "percent = 333.0", ", line 14: quoted.0.percent: "),
        (
            "[[quoted]]",
            "[[quotes]]",
            ", line 10: quotes: there is no key 'quotes': did you mean qu",
        ),
        ("[[values]]", "[[values", "not a TOML file"),
    ],
)
def test_mistakes_in_values_are_told(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "values.toml"
    path.write_text(VALUES.replace(old, new, 1))
    with pytest.raises(UsageError) as told:
        read_paper_values(path)
    assert str(told.value).startswith(str(path))
    assert words in str(told.value)
    assert "\n" not in str(told.value)
    with pytest.raises(UsageError, match="--set paper_values"):
        load_study(find_study("demo"), (f"paper_values={path}",))


def test_a_second_value_of_a_cell_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "values.toml"
    path.write_text(VALUES + VALUES)
    with pytest.raises(UsageError, match=r"line 17: values.1: a second value of table-2, table2-p"):
        read_paper_values(path)


def test_the_line_in_a_long_file_is_found_at_once(tmp_path: Path) -> None:
    entry = VALUES.split("[[quoted]]")[0]
    rows = [entry.replace("table2-pgd-4", f"r{number}") for number in range(400)]
    path = tmp_path / "values.toml"
    path.write_text("".join(rows) + entry.replace("12.5", "-1.0"))
    started = time.perf_counter()
    with pytest.raises(UsageError, match=r"line 3607: values.400.percent"):
        read_paper_values(path)
    assert time.perf_counter() - started < 10, "parsing every beginning of it takes a minute"
