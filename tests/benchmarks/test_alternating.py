"""The timed benchmarks: what they share, and each of them over next to nothing."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import check
from benchmarks.alternating import CLOCKS, Case, measure


class Clock:
    """Time that passes only where work says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setitem(CLOCKS, "wall", lambda: self.now)

    def work(self, seconds: float) -> Any:
        def pass_time() -> None:
            self.now += seconds

        return pass_time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("better", "target", "ratio", "met"),
    [("lower", 0.6, 0.5, True), ("lower", 0.4, 0.5, False), ("higher", 1.5, 2.0, True),
     ("higher", 2.5, 2.0, False)],
)  # fmt: skip
def test_a_ratio_and_its_target(
    better: Any, target: float, ratio: float, met: bool, clock: Clock
) -> None:
    case = Case("work", "more work", clock.work(2), clock.work(4), target, better)
    row = measure(case, 3, "cpu")
    assert (row.lowest, row.ratio, row.highest) == (ratio, ratio, ratio)
    assert (row.ours, row.baseline, row.met) == (2, 4, met)


def test_units_of_work_are_divided_by(clock: Clock) -> None:
    case = Case("work", "one", clock.work(4), clock.work(2), None, "lower", 4, 1)
    assert measure(case, 3, "cpu").ratio == 0.5


@pytest.mark.parametrize("name", ["extraction", "scoring", "online", "demo_way", "rescoring"])
def test_every_benchmark_runs_and_writes_its_numbers(name: str, tmp_path: Path) -> None:
    """What it finds of so little is no figure; that all rows are there is."""
    module = importlib.import_module(f"benchmarks.{name}")
    path = tmp_path / "results" / f"{name}.json"
    status = module.main(["--sizes", "tiny", "--rounds", "1", "--json", str(path)])
    assert status in (0, 1)
    report = json.loads(path.read_text())
    assert report["machine"]["torch"]
    assert not report["skipped"]
    assert len(report["rows"]) >= (1 if name == "demo_way" else 2)
    for row in report["rows"]:
        assert 0 < row["lowest"] <= row["ratio"] <= row["highest"]
    if name == "extraction":
        assert max(report["largest_relative_error"].values()) < 1e-5
    if name == "demo_way":
        assert report["predictions_agree"] == [True]
    if name == "scoring":
        assert set(report["first_choices_that_differ"].values()) == {0}


def test_a_gpus_time_is_not_the_processors(capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module("benchmarks.online")
    with pytest.raises(SystemExit):
        module.main(["--device", "cuda", "--clock", "cpu"])
    assert "--clock cpu cannot time a GPU" in capsys.readouterr().err


def results(folder: Path, *rows: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "scoring.json").write_text(json.dumps({"rows": rows}))
    return folder


def row(ratio: float, better: str = "lower", what: str = "votes") -> dict[str, Any]:
    spread = {"lowest": ratio - 0.1, "ratio": ratio, "highest": ratio + 0.1}
    return {"what": what, "against": "floor", "better": better, **spread}


@pytest.mark.parametrize(
    ("fresh", "status", "told"),
    [
        (row(1.0), 0, "No ratio got worse"),
        (row(0.5), 0, "No ratio got worse"),
        (row(1.15), 0, "No ratio got worse"),
        (row(1.25), 1, "scoring: votes, floor: 1.250 (1.150 to 1.350) is worse than 1.000"),
        (row(1.0, what="other"), 1, "scoring: votes, floor: it is missing"),
    ],
)
def test_what_got_worse_is_told(
    fresh: dict[str, Any], status: int, told: str, tmp_path: Path, capsys: Any
) -> None:
    folders = results(tmp_path / "fresh", fresh), results(tmp_path / "committed", row(1.0))
    assert check.main([str(folder) for folder in folders]) == status
    assert told in capsys.readouterr().out


def test_worse_is_less_where_more_is_better(tmp_path: Path) -> None:
    committed = results(tmp_path / "committed", row(30.0, "higher"))
    for ratio, status in ((29.9, 0), (40.0, 0), (29.7, 1)):
        fresh = results(tmp_path / str(ratio), row(ratio, "higher"))
        assert check.main([str(fresh), str(committed)]) == status


def test_a_benchmark_that_was_not_run_is_told(tmp_path: Path, capsys: Any) -> None:
    committed = results(tmp_path / "committed", row(1.0))
    assert check.main([str(tmp_path / "nothing"), str(committed)]) == 1
    assert "scoring: it was not run" in capsys.readouterr().out


def test_nothing_to_compare_with_is_a_usage_error(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        check.main([str(tmp_path), str(tmp_path)])
    assert stopped.value.code == 2
    assert "holds no JSON file" in capsys.readouterr().err
