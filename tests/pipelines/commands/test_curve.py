"""`regroup curve` on the finished demo: what it counts, what it costs, what it refuses."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from tests.pipelines.conftest import FinishedDemo, Outcome, Run
from tests.pipelines.records import measured, over_success

MADE = "digits-val-digits-cnn-pgd-minimal"


def curve(
    run: Run, demo: FinishedDemo, *more: object, made: str = MADE, json: bool = True
) -> Outcome:
    args = ["--store", demo.store, "--bank", "digits-train-digits-cnn", "--adversarials", made]
    return run("curve", *args, *(["--json"] if json else []), *more)


def test_the_curve_begins_clean_and_ends_at_the_accuracy_over_s(
    run: Run, finished_demo: FinishedDemo, tmp_path: Path
) -> None:
    k = finished_demo.evaluation.k
    found = curve(run, finished_demo, "--k", k, "--output", tmp_path / "new" / "curve.csv")
    assert found.status == 0, found.err
    rows, total = found.json["rows"], finished_demo.config.limit
    assert found.json["forward_passes"] == 0
    assert rows[0]["epsilon"] == rows[0]["broken"] == 0
    assert rows[0]["softmax"]["correct"] == rows[0]["softmax"]["total"] == total
    # Every attack of the demo succeeds: at the end all images are attacked ones.
    attacked = measured(finished_demo.evaluation)["pgd-minimal"]
    assert attacked.success == total
    assert rows[-1]["broken"] == total
    assert rows[-1]["softmax"]["correct"] == 0
    assert rows[-1]["regroup"]["correct"] == over_success(attacked).regroup_top1.correct
    with (tmp_path / "new" / "curve.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [int(row["regroup_correct"]) for row in written] == [
        row["regroup"]["correct"] for row in rows
    ]
    heads = ["epsilon", "broken", "total"]
    heads += [f"{m}_{n}" for m in ("softmax", "regroup") for n in ("correct", "low", "high")]
    assert list(written[0]) == heads


def test_sizes_are_those_of_the_attack(run: Run, finished_demo: FinishedDemo) -> None:
    element = BlockElement.open(open_store(finished_demo.store), "adversarials", MADE)
    sizes = element.samples(["linf", "l2"])
    for size, given in (("linf", ()), ("l2", ("--size", "l2"))):
        rows = curve(run, finished_demo, *given).json["rows"]
        median = np.median(sizes[size].to_numpy())
        half = next(row for row in rows if row["broken"] >= finished_demo.config.limit / 2)
        np.testing.assert_allclose(half["epsilon"], median, rtol=0.2)
        assert rows[-1]["epsilon"] == sizes[size].to_numpy().max()


def test_a_table_for_people(run: Run, finished_demo: FinishedDemo) -> None:
    found = curve(run, finished_demo, "--points", 4, json=False)
    assert found.status == 0
    assert "in 255ths" in found.out
    assert "0 forward passes" in found.out


def test_what_gives_no_curve_is_refused(run: Run, finished_demo: FinishedDemo) -> None:
    budget = curve(run, finished_demo, made="digits-val-digits-cnn-pgd-budget")
    assert budget.status == 2
    assert "made under protocol budget: only those of protocol minimal" in budget.err
    few = curve(run, finished_demo, "--points", 1)
    assert (few.status, "--points 1: a curve needs at least 2 points" in few.err) == (2, True)
    unknown = curve(run, finished_demo, made="nothing")
    assert (unknown.status, "there are no adversarials 'nothing'" in unknown.err) == (2, True)
