"""The demo ends with what the README promises, and does nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regroup.intervals import wilson
from regroup_pipelines.commands import demo
from regroup_pipelines.configs.studies import DemoConfig
from regroup_pipelines.results.records import StudyResults
from regroup_pipelines.results.stored import read_results
from regroup_store.format.store import open_store
from tests.pipelines.conftest import FinishedDemo, Run
from tests.pipelines.records import measured, over_success, study_results


def test_network_is_good_enough(finished_demo: FinishedDemo) -> None:
    assert finished_demo.printed["softmax_val"] >= 0.97


def test_clean_and_attacked_rows(finished_demo: FinishedDemo) -> None:
    rows = measured(finished_demo.evaluation)
    assert list(rows) == ["clean", "pgd-minimal", "pgd-budget"]
    assert rows["clean"].success is None
    assert (rows["clean"].over_all.regroup_top1.accuracy or 0) > 0.8
    for name in ("pgd-minimal", "pgd-budget"):
        row = rows[name]
        assert row.attempted == 48
        assert row.success is not None
        assert 0 < row.success <= 48
        # The attack succeeded exactly where softmax is wrong, by definition of #S.
        assert over_success(row).softmax_top1.correct == 0
        assert row.over_all.softmax_top1.correct == 48 - row.success
        assert over_success(row).regroup_top1.total == row.success
    assert (rows["pgd-minimal"].success or 0) >= 46
    minimal = over_success(rows["pgd-minimal"]).regroup_top1.accuracy
    assert minimal is not None
    assert minimal > 0.3, "the smallest perturbations fool the network, not its taps"


def test_intervals_are_wilsons(finished_demo: FinishedDemo) -> None:
    cell = finished_demo.evaluation.clean.over_all.softmax_top1
    assert cell.interval95 == pytest.approx(wilson(cell.correct, cell.total))


def test_rescoring_made_no_forward_pass_and_the_rest_did(finished_demo: FinishedDemo) -> None:
    steps = finished_demo.results.steps
    assert finished_demo.printed["rescoring"]["forward_passes"] == 0
    forwarded = {s.step.split()[0]: s.forward_passes for s in steps}
    assert forwarded["score"] == 0
    assert forwarded["bank"] == 0
    extracted = [s for s in steps if s.step.startswith("extract")]
    assert [s.forward_passes for s in extracted] == [s.samples for s in extracted]
    # Of the 1198 training images the first round's (50 + sqrt(50 / 4)) / 0.75 = 72 per class.
    assert sum(s.samples for s in extracted) == 720 + 599 + 48 + 48


def test_a_bank_counts_each_of_its_samples_once(finished_demo: FinishedDemo) -> None:
    (bank,) = (s for s in finished_demo.results.steps if s.step.startswith("bank"))
    assert bank.blocks == len(finished_demo.taps) == 8
    assert bank.samples == 10 * 50, "not samples times taps"


def test_every_k_and_sign_is_tabulated(finished_demo: FinishedDemo) -> None:
    results = finished_demo.evaluation
    rows = {(r.k, r.signs): r.accuracy for r in results.accuracy_against_k}
    taps = len(results.tap_accuracy)
    assert set(rows) == {
        (k, s) for k in range(1, taps + 1) for s in ("both", "positive", "negative")
    }
    chosen = rows[results.k, "both"]["clean"]
    assert chosen == results.clean.over_all.regroup_top1


def test_files(finished_demo: FinishedDemo) -> None:
    output = Path(finished_demo.config.output)
    saved = json.loads((output / "results.json").read_text())
    found = study_results(saved)
    assert found.without_cost() == finished_demo.results.without_cost()
    assert found.steps == finished_demo.results.steps
    assert saved["schema_version"] == finished_demo.printed["schema_version"] == 2
    assert saved.keys() == StudyResults.model_fields.keys(), "those of every study"
    plot = output / "preactivation-paper" / "k.png"
    assert plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_it_ends_with_a_report_of_what_it_made(finished_demo: FinishedDemo) -> None:
    results = finished_demo.results
    page = Path(finished_demo.config.output) / "report" / "index.html"
    assert finished_demo.printed["report"] == str(page)
    assert page.is_file()
    kept = read_results(open_store(finished_demo.store), "demo")
    assert kept.evaluations == results.evaluations
    assert kept.forward_passes == sum(step.forward_passes for step in results.steps)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--epsilon", "32", "did you mean 32/255?"),
        ("--limit", "0", "regroup demo: --limit 0: an attack needs at least 1 image"),
    ],
)
def test_an_option_out_of_range_is_told_before_any_work(
    option: str, value: str, said: str, run: Run, tmp_path: Path
) -> None:
    told = run("demo", "--store", tmp_path / "s", "--output", tmp_path / "o", option, value)
    assert told.status == 2
    assert said in told.err
    assert not list(tmp_path.iterdir())


def test_second_run_finds_everything(
    finished_demo: FinishedDemo, capfd: pytest.CaptureFixture[str]
) -> None:
    config = DemoConfig(store=finished_demo.store, output=finished_demo.config.output, limit=48)
    again = demo.main(config)
    out, err = capfd.readouterr()
    assert "Everything was in the store already" in out
    assert "0 forward passes" in out
    found = [line for line in err.splitlines() if "already in the store" in line]
    assert len(found) == len(again["steps"]) > 8, "a line per step"
    assert len(set(found)) == len(found)
    assert all(step["blocks"] == 0 for step in again["steps"])
    assert study_results(again).evaluations == finished_demo.results.evaluations


def test_the_study_of_the_demo_finds_all_that_the_demo_made(
    finished_demo: FinishedDemo, run: Run
) -> None:
    """pipelines/studies/demo.toml declares what the demo does."""
    changes = (
        "attacks.pgd-minimal.limit=48",
        "attacks.pgd-budget.limit=48",
        "taps=['preactivation']",
    )
    planned = run(
        "run", "demo", "--dry-run", "--json", "--store", finished_demo.store,
        "--data", finished_demo.config.output,
        *(word for change in changes for word in ("--set", change)),
    )  # fmt: skip
    assert planned.status == 0
    lines = planned.json["plan"]
    assert len(lines) >= 12
    assert [line for line in lines if not line["done"]] == []
