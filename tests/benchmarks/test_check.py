"""bench-check: made-up results, better, equal, worse within the spread, worse, missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.check import main
from benchmarks.paired import Fact, Row, Skipped, as_json

Spread = tuple[float, float, float]


def row(spread: Spread, measure: Any = "cost") -> dict[str, object]:
    lowest, ratio, highest = spread
    return as_json(Row("ours", "base", 1.0, 1.0, measure, ratio, lowest, highest, 1.1, 5))


def write(folder: Path, *rows: dict[str, object], sizes: str = "small", name: str = "some") -> None:
    folder.mkdir(exist_ok=True)
    result = {"benchmark": name, "device": "cpu", "sizes": sizes, "rows": list(rows)}
    (folder / f"{name}.json").write_text(json.dumps(result))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("committed", "fresh"):
        (tmp_path / name).mkdir()
    return tmp_path / "committed", tmp_path / "fresh"


def check(folders: tuple[Path, Path]) -> int:
    committed, fresh = folders
    return main([str(fresh), "--committed", str(committed)])


@pytest.mark.parametrize(
    ("measure", "before", "now", "status", "said"),
    [
        ("cost", (1.0, 1.1, 1.2), (0.8, 0.9, 0.95), 0, "better"),
        ("cost", (1.0, 1.1, 1.2), (1.0, 1.1, 1.2), 0, ""),
        ("cost", (1.0, 1.1, 1.2), (1.19, 1.3, 1.4), 0, ""),
        ("cost", (1.0, 1.1, 1.2), (1.21, 1.3, 1.4), 1, "worse"),
        ("extra", (0.1, 0.1, 0.2), (0.3, 0.3, 0.4), 1, "worse"),
        ("gain", (30.0, 31.0, 32.0), (33.0, 34.0, 35.0), 0, "better"),
        ("gain", (30.0, 31.0, 32.0), (25.0, 26.0, 30.5), 0, ""),
        ("gain", (30.0, 31.0, 32.0), (25.0, 26.0, 29.9), 1, "worse"),
    ],
)
def test_a_ratio_fails_when_the_spreads_do_not_meet(
    folders: tuple[Path, Path],
    measure: str,
    before: Spread,
    now: Spread,
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(folders[0], row(before, measure))
    write(folders[1], row(now, measure))
    assert check(folders) == status
    printed = capsys.readouterr().out
    assert ("some: ours" in printed) == bool(said)
    assert said in printed
    assert ("FAILED" in printed) == bool(status)


@pytest.mark.parametrize("left", [(), (as_json(Skipped("ours", "no numba")),)])
def test_a_row_that_is_gone_or_skipped_fails(
    folders: tuple[Path, Path], left: tuple[dict[str, object], ...], capsys: Any
) -> None:
    write(folders[0], row((1.0, 1.1, 1.2)))
    write(folders[1], *left)
    assert check(folders) == 1
    assert "FAILED missing some: ours" in capsys.readouterr().out


def test_a_file_that_is_gone_fails(folders: tuple[Path, Path], capsys: Any) -> None:
    write(folders[0], row((1.0, 1.1, 1.2)))
    assert check(folders) == 1
    assert "some.json does not exist" in capsys.readouterr().out


def test_a_new_row_is_named_and_does_not_fail(folders: tuple[Path, Path], capsys: Any) -> None:
    write(folders[0], as_json(Skipped("ours", "no numba")))
    write(folders[1], row((1.0, 1.1, 1.2)))
    assert check(folders) == 0
    assert "new     some: ours" in capsys.readouterr().out


@pytest.mark.parametrize(("before", "now", "status"), [(0, 0, 0), (0, 1, 1), (1, 2, 0), (1, 0, 0)])
def test_a_fact_fails_when_it_kept_its_target_before(
    folders: tuple[Path, Path], before: float, now: float, status: int
) -> None:
    write(folders[0], as_json(Fact("differences", before, 0)))
    write(folders[1], as_json(Fact("differences", now, 0)))
    assert check(folders) == status


def test_other_sizes_cannot_be_compared(folders: tuple[Path, Path], capsys: Any) -> None:
    write(folders[0], row((1.0, 1.1, 1.2)))
    write(folders[1], row((1.0, 1.1, 1.2)), sizes="tiny")
    assert check(folders) == 2
    assert "run it again with --sizes small" in capsys.readouterr().err


def test_nothing_committed_cannot_be_compared(folders: tuple[Path, Path], capsys: Any) -> None:
    (folders[0] / "attacks.json").write_text('{"rows": []}')  # of another kind
    assert check(folders) == 2
    assert "make bench" in capsys.readouterr().err


def test_a_broken_file_is_named(folders: tuple[Path, Path], capsys: Any) -> None:
    (folders[0] / "some.json").write_text("{")
    assert check(folders) == 2
    assert "some.json is not the result of a benchmark" in capsys.readouterr().err
