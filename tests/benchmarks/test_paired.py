"""Rounds, ratios, verdicts, table and JSON of the benchmarks that hold ours against a baseline."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.machine import forget_peak, peak_bytes
from benchmarks.paired import (
    Comparison,
    Contender,
    Fact,
    Item,
    Measure,
    Row,
    Setting,
    Skipped,
    Taken,
    command,
    measure,
)


def replayed(*seconds: float) -> Callable[[], Taken]:
    """A run that takes what is given, in turn; the first is the warm-up's."""
    left = iter(seconds)
    return lambda: Taken(next(left), 7)


def only(*seconds: float, measure_by: Measure, target: float, ours: int = 1, base: int = 1) -> Row:
    contender = Contender("ours", replayed(99.0, *seconds), target, measure_by, ours)
    baseline = replayed(99.0, 2.0, 4.0, 4.0)
    (row,) = measure(Comparison("base", baseline, (contender,), base), 3)
    return row


def test_a_cost_is_our_time_over_the_baselines_round_by_round_without_the_warm_up() -> None:
    row = only(1.0, 6.0, 4.0, measure_by="cost", target=1.0)
    assert (row.lowest, row.ratio, row.highest) == (0.5, 1.0, 1.5)
    assert (row.ours_s, row.baseline_s, row.rounds) == (4.0, 4.0, 3)
    assert row.met
    assert not only(1.0, 6.0, 4.0, measure_by="cost", target=0.99).met


def test_a_gain_is_the_baselines_time_over_ours_and_has_to_be_reached() -> None:
    row = only(1.0, 1.0, 1.0, measure_by="gain", target=4.0)
    assert (row.lowest, row.ratio, row.highest) == (2.0, 4.0, 4.0)
    assert row.met
    assert not only(1.0, 1.0, 1.0, measure_by="gain", target=4.1).met


def test_extra_is_the_difference_of_the_seconds() -> None:
    row = only(2.25, 4.5, 4.0, measure_by="extra", target=0.25)
    assert (row.lowest, row.ratio, row.highest) == (0.0, 0.25, 0.5)
    assert row.met


def test_times_are_a_samples_where_a_slow_baseline_does_fewer() -> None:
    row = only(8.0, 8.0, 8.0, measure_by="gain", target=1.0, ours=8, base=2)
    assert (row.ours_s, row.baseline_s, row.ratio) == (1.0, 2.0, 2.0)


def test_a_contender_may_be_held_against_another_one() -> None:
    one = Contender("one", replayed(9.0, 4.0, 8.0, 8.0), samples=2)
    two = Contender("two", replayed(9.0, 1.0, 2.0, 4.0), 1.9, "gain", against="one")
    rows = measure(Comparison("base", replayed(9.0, 1.0, 1.0, 1.0), (one, two)), 3)
    assert [(row.what, row.baseline) for row in rows] == [("one", "base"), ("two", "one")]
    assert (rows[1].lowest, rows[1].ratio, rows[1].highest) == (1.0, 2.0, 2.0)
    assert (rows[1].ours_s, rows[1].baseline_s, rows[1].met) == (2.0, 4.0, True)


def test_processor_time_has_a_ratio_of_its_own_where_both_tell_it() -> None:
    told = Contender("told", lambda: Taken(8.0, 1, 6.0)), Contender("not", lambda: Taken(8.0, 1))
    a, b = measure(Comparison("base", lambda: Taken(4.0, 1, 4.0), told), 2)
    assert (a.ratio, a.processor) == (2.0, 1.5)
    assert (b.ratio, b.processor) == (2.0, None)


def test_a_run_that_waits_takes_no_processor_time() -> None:
    wait = Contender("wait", lambda: time.sleep(0.2))
    (row,) = measure(Comparison("work", lambda: np.ones(10_000_000).sum(), (wait,)), 1)
    assert row.processor is not None
    assert row.processor < 0.5 < row.ratio


def test_what_is_compared_takes_turns_at_being_first() -> None:
    order: list[str] = []

    def named(name: str) -> Callable[[], Taken]:
        def run() -> Taken:
            order.append(name)
            return Taken(1.0, 1)

        return run

    contenders = (Contender("a", named("a")), Contender("b", named("b")))
    measure(Comparison("base", named("base"), contenders), 2)
    assert order == ["base", "a", "b", "a", "b", "base", "b", "base", "a"]


def test_a_large_run_has_a_larger_peak_than_a_small_one() -> None:
    held = np.ones(100_000_000 // 8)  # freed before it counts
    del held
    large = Contender("large", lambda: np.ones(80_000_000 // 8).sum())
    (row,) = measure(Comparison("small", lambda: np.ones(8).sum(), (large,)), 1)
    assert row.peak is not None
    assert row.baseline_peak is not None
    assert 60e6 < row.peak - row.baseline_peak < 100e6


def test_a_peak_is_forgotten() -> None:
    held = torch.ones(100_000_000 // 4)
    high = peak_bytes()
    del held
    forget_peak()
    assert peak_bytes() < high - 50e6


def some(setting: Setting) -> Iterator[Item]:
    assert (setting.sizes, setting.rounds) == ("tiny", 2)
    contender = Contender("fast", lambda: Taken(1.0), 2.0, notes={"batch": 3})
    yield Comparison("base", lambda: Taken(1.0), (contender,))
    yield Fact("error", 1e-6, 1e-5)
    yield Skipped("hat", "no numba here")


def test_the_command_prints_every_row_and_writes_the_machine_beside_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "some.json"
    assert command("some", "", some, ["--sizes", "tiny", "--rounds", "2", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "no numba here" in printed
    assert printed.count("met") == 2
    result = json.loads(path.read_text())
    assert result["benchmark"] == "some"
    assert (result["sizes"], result["rounds"], result["device"]) == ("tiny", 2, "cpu")
    assert result["machine"]["cores"] >= 1
    row, fact, skipped = result["rows"]
    assert (row["what"], row["ratio"], row["met"], row["notes"]) == (
        "fast",
        1.0,
        True,
        {"batch": 3},
    )
    assert (fact["kind"], fact["value"], fact["met"]) == ("fact", 1e-6, True)
    assert (skipped["kind"], skipped["reason"]) == ("skipped", "no numba here")


@pytest.mark.parametrize(
    "item",
    [
        Fact("error", 2e-5, 1e-5),
        Comparison("base", lambda: Taken(1.0), (Contender("slow", lambda: Taken(3.0), 2.0),)),
    ],
)
def test_a_missed_target_is_told_and_the_exit_status(
    item: Item, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("some", "", lambda _: iter([item]), ["--rounds", "1"]) == 1
    assert "NOT MET" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--device", "cuda"], ["--sizes", "huge"]])
def test_what_cannot_be_meant_ends_with_status_2(words: list[str]) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as stop:
        command("some", "", some, words)
    assert stop.value.code == 2
