"""Several runs as one result: means of the medians, ranges over all, the worst of the facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.merge_runs import UnlikeError, main, merged
from benchmarks.paired import Fact, Row, Skipped, as_json

SKIPPED = Skipped("gpu", "none")


def run(ratio: float, value: float, **changes: Any) -> dict[str, Any]:
    row = Row("ours", "base", ratio, 1.0, "gain", ratio, ratio - 0.1, ratio + 0.2, 1.9, 5, peak=7)
    facts = (Fact("error", value, 0.5), Fact("GB/s", value, None))
    rows = [as_json(each) for each in (row, *facts, SKIPPED)]
    result = {"benchmark": "b", "sizes": "small", "device": "cpu", "rounds": 5, "rows": rows}
    return result | changes


def test_a_ratio_is_the_mean_and_its_range_spans_all() -> None:
    result = merged([run(1.8, 0.9), run(2.1, 0.1)])
    row, fact, speed, skipped = result["rows"]
    assert (row["ratio"], row["lowest"], row["highest"]) == pytest.approx((1.95, 1.7, 2.3))
    assert (row["rounds"], result["rounds"], row["peak"]) == (10, 10, 7)
    assert row["processor"] is None
    assert row["met"]
    assert (fact["value"], fact["met"]) == (0.9, False)
    assert speed["value"] == 0.1
    assert skipped["reason"] == "none"


def test_the_verdict_is_that_of_the_mean() -> None:
    assert not merged([run(1.8, 0.1), run(1.95, 0.1)])["rows"][0]["met"]


@pytest.mark.parametrize(
    "other", [{"sizes": "full"}, {"device": "cuda"}, {"benchmark": "c"}, {"rows": []}]
)
def test_unlike_runs_are_refused(other: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UnlikeError):
        merged([run(1.8, 0.1), run(1.8, 0.1, **other)])


def test_files_that_all_runs_have_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, results in (("a", {"x": run(1.0, 0), "y": run(1.0, 0)}), ("b", {"x": run(2.0, 0)})):
        (tmp_path / name).mkdir()
        for file, result in results.items():
            (tmp_path / name / f"{file}.json").write_text(json.dumps(result))
    words = [str(tmp_path / "a"), str(tmp_path / "b"), "--into", str(tmp_path / "out")]
    assert main(words) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.json"]
    assert json.loads((tmp_path / "out" / "x.json").read_text())["rows"][0]["ratio"] == 1.5
    (tmp_path / "b" / "x.json").write_text(json.dumps(run(2.0, 0, sizes="full")))
    assert main(words) == 2
    assert "sizes" in capsys.readouterr().err
