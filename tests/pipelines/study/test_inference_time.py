"""Table 6: a study that asks for it has predictions timed once, and finds that again."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from regroup_cluster.workers.latency import LatencyWork
from regroup_pipelines.commands.run import main
from regroup_pipelines.configs.studies import RunConfig
from regroup_pipelines.errors import UsageError
from regroup_pipelines.render.inference_table import inference_table
from regroup_pipelines.results.records import StudyResults
from regroup_pipelines.results.timings import Timing, TimingNotRun
from regroup_pipelines.schema.paper_values import read_paper_values
from regroup_pipelines.steps import inference_time
from regroup_pipelines.study.run import StudyIncompleteError
from regroup_store.format.store import open_store
from tests.pipelines.colours import MODEL, colour_folder, study_text
from tests.pipelines.conftest import Run
from tests.pipelines.records import study_results
from tests.store.elements import snapshot

TIMES = f"""
[[times]]
network = "{MODEL}"
device = "cpu"
batch = "n"
measure = "regroup"
seconds = 0.25
place = "made up for this test"
"""


@dataclass(frozen=True)
class Timed:
    config: RunConfig
    before: StudyResults
    planned: dict[str, Any]
    results: StudyResults

    @property
    def cpu(self) -> Timing:
        """The times of the one device that is there."""
        (found,) = [row for row in self.rows if isinstance(row, Timing)]
        return found

    @property
    def rows(self) -> tuple[Timing | TimingNotRun, ...]:
        return self.results.evaluations[0].inference_time or ()

    @property
    def table(self) -> Path:
        return Path(self.config.output) / "preactivation-four" / "table-6"


@pytest.fixture(scope="module")
def timed(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Timed:
    folder = tmp_path_factory.mktemp("timed")
    colour_folder(folder / "train", images=3)
    colour_folder(folder / "val", images=4)
    (folder / "colours.toml").write_text(study_text())
    (folder / "values.toml").write_text(TIMES)
    config = RunConfig(
        study=str(folder / "colours.toml"), store=str(folder / "store"), data=str(folder),
        output=str(folder / "out"), json=True, workers=1,
        set=("report.tables=['table-6']", f"paper_values={folder}/values.toml", "scoring.k=2"),
    )  # fmt: skip
    before = study_results(main(replace(config, set=("scoring.k=2",))))
    planned = main(replace(config, dry_run=True))
    return Timed(config, before, planned, study_results(main(config)))


def test_a_study_that_does_not_ask_is_not_timed(timed: Timed) -> None:
    assert timed.before.evaluations[0].inference_time is None
    assert not any(step.step.startswith("time") for step in timed.before.steps)


def test_a_dry_run_tells_the_step_and_its_passes(timed: Timed) -> None:
    (line,) = (each for each in timed.planned["plan"] if not each["done"])
    assert line["step"] == "preactivation: inference time with four"
    # Twelve images at batch 12, eight one by one; the network and REGroup; six rounds.
    assert line["forward_passes"] == 2 * 6 * (12 + 8)


def test_the_run_does_that_and_nothing_else(timed: Timed) -> None:
    worked = [step for step in timed.results.steps if step.blocks]
    assert [step.step for step in worked] == ["time inference, cpu"]
    assert worked[0].samples == 12, "each image counts once, however often it is predicted"
    assert worked[0].forward_passes == timed.results.forward_passes == 2 * 6 * (12 + 8)
    planned = next(each for each in timed.planned["plan"] if not each["done"])
    assert planned["ref"] == worked[0].ref


def test_the_numbers_are_of_both_and_their_ratio(timed: Timed) -> None:
    cpu, (_, gpu) = timed.cpu, timed.rows
    assert [(row.device, row.kind) for row in timed.rows] == [
        ("cpu", "measured"), ("cuda", "not run")
    ]  # fmt: skip
    assert gpu == TimingNotRun(device="cuda", reason=inference_time.NO_GPU)
    assert [each.batch for each in cpu.times] == [1, 12]
    for each in cpu.times:
        for spread in (each.softmax, each.regroup, each.ratio):
            assert 0 < spread.low <= spread.median <= spread.high
    assert cpu.machine["device"] == "cpu"
    assert "cores" in cpu.words
    assert cpu.rounds >= 5


def test_the_table_says_not_run_where_there_is_no_device(timed: Timed) -> None:
    rows = json.loads(timed.table.with_suffix(".json").read_text())
    found = {(row["device"], row["batch"], row["measure"]): row for row in rows}
    assert len(found) == len(rows) == 2 * 2 * 3
    measured = found["cpu", "n", "regroup"]
    spread = timed.cpu.times[1].regroup
    assert {name: measured[name] for name in ("median", "low", "high")} == spread.plain()
    assert (measured["paper"], measured["batch_size"]) == (0.25, 12)
    assert found["cpu", "n", "softmax"]["paper"] == ""
    assert found["cuda", "1", "ratio"]["state"] == "not run"
    assert found["cuda", "1", "ratio"]["why"] == inference_time.NO_GPU
    text = timed.table.with_suffix(".md").read_text()
    assert "| GPU | 1 | softmax | not run | - | not available |" in text
    median, low, high = (f"{1000 * each:.4g}" for each in (spread.median, spread.low, spread.high))
    assert f"| {median} ms [{low}, {high}] | 5 | 250 ms |" in text
    assert "they differ when measured again" in text
    assert r"\caption{Table 6" in timed.table.with_suffix(".tex").read_text()


def test_a_second_run_finds_the_times_and_does_nothing(timed: Timed, run: Run) -> None:
    store = Path(timed.config.store)
    before = snapshot(open_store(str(store)))
    arguments = [word for each in timed.config.set for word in ("--set", each)]
    told = run(
        "run", timed.config.study, "--store", store, "--data", timed.config.data,
        "--output", timed.config.output, *arguments,
    )  # fmt: skip
    assert told.status == 0
    assert "time inference, cpu: already in the store" in told.err
    assert "nothing was computed again" in told.out
    assert snapshot(open_store(str(store))) == before


def test_another_k_is_another_timing(timed: Timed) -> None:
    asked = [each for each in timed.config.set if "scoring.k" not in each]
    planned = main(replace(timed.config, set=(*asked, "scoring.k=1"), dry_run=True))
    assert [each["step"] for each in planned["plan"] if not each["done"]] == [
        "preactivation: inference time with four"
    ]


def test_a_dry_run_where_there_is_a_gpu_tells_both_devices(
    timed: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for changes, devices in (((), ["cuda"]), (("scoring.k=1",), ["cpu", "cuda"])):
        planned = main(replace(timed.config, set=(*timed.config.set, *changes), dry_run=True))
        lines = [line for line in planned["plan"] if not line["done"]]
        assert [line["what"] for line in lines] == [f"time inference, {each}" for each in devices]
        assert {line["forward_passes"] for line in lines} == {240}


def test_a_timing_that_fails_leaves_the_rest_of_the_study(
    timed: Timed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = inference_time.TimedPrediction.work
    monkeypatch.setattr(
        inference_time.TimedPrediction, "work",
        lambda *given: replace(real(*given), device="nowhere"),
    )  # fmt: skip
    asked = (*timed.config.set, "scoring.signs=negative")
    config = replace(timed.config, set=asked, attempts=1, output=str(tmp_path / "out"))
    with pytest.raises(StudyIncompleteError, match="inference time with four") as told:
        main(config)
    times = study_results(told.value.summary).evaluations[0].inference_time or ()
    assert [each.kind for each in times] == ["not run"] * 2
    assert all(isinstance(each, TimingNotRun) and "nowhere" in each.reason for each in times)
    assert "not run" in (tmp_path / "out" / "preactivation-four" / "table-6.md").read_text()
    assert LatencyWork.duplicable is False


def test_a_model_of_batch_one_has_no_row_n(timed: Timed) -> None:
    plain = timed.results.plain()
    plain["settings"]["model"]["batch"] = 1
    results = study_results(plain)
    rows = inference_table(results, results.evaluations[0]).download
    assert [r["batch"] for r in rows if r["device"] == "cuda"] == ["1"] * 3


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [("0.25", "0.0", "times.0.seconds"), ('"n"', '"64"', "times.0.batch"), ("TWICE", "", "second")],
)
def test_mistakes_in_the_papers_times_are_told(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    path = tmp_path / "v.toml"
    path.write_text(TIMES * 2 if old == "TWICE" else TIMES.replace(old, new))
    with pytest.raises(UsageError, match=words):
        read_paper_values(path)
