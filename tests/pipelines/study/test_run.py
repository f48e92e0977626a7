"""A study from end to end on coloured squares: what it makes, writes, repeats and plans."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from regroup.attacks.pgd.attack import PGD
from regroup.intervals import wilson
from regroup_pipelines.commands.run import main
from regroup_pipelines.configs.studies import RunConfig
from regroup_pipelines.errors import IncompleteError, UsageError
from regroup_pipelines.render.grids import accuracy_grid
from regroup_pipelines.render.table import Table, text_cell
from regroup_pipelines.results.records import CleanImages, ImagesNotRun
from regroup_pipelines.results.stored import read_results
from regroup_pipelines.schema.attacks import Subset
from regroup_pipelines.steps import attacking as attack
from regroup_pipelines.study.dry_run import overlaid
from regroup_pipelines.study.run import StudyIncompleteError
from regroup_pipelines.study.subsets import draw_subset
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.kinds.studies import read_study, study_names, write_study
from regroup_store.kinds.votes import TRUE_RANK
from tests.pipelines.colour_study import Finished, plan_and_run
from tests.pipelines.colours import colour_folder
from tests.pipelines.conftest import Run
from tests.pipelines.records import attacked, measured, not_run, over_success, study_results


@pytest.fixture(scope="module")
def finished(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The study, planned over a store that is not there, and then run."""
    return plan_and_run(tmp_path_factory.mktemp("study"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_plan_of_a_fresh_study_writes_nothing_and_knows_its_numbers(finished: Finished) -> None:
    assert finished.fresh
    lines = {(line["step"], line["what"]): line for line in finished.planned["plan"]}
    assert not any(line["done"] for line in lines.values())
    assert lines["index val", "digest " + Path(finished.config.data).name + "-val"]["samples"] == 12
    told = {
        step: (line["samples"], line["forward_passes"], line["bounds"], line["ref"])
        for (step, _), line in lines.items()
    }
    both = ("samples", "forward_passes")
    strong = PGD(protocol="budget", steps=4).cost().forward
    assert told["linear: clean"] == (12, 12, (), None), "images that nothing was read of"
    assert told["preactivation: samples of four"] == (9, 9, (), None)
    assert told["attack strong"] == (9, 9 * strong, both, None)
    assert told["attack least"][:3:2] == (6, both)
    assert told["linear: strong"] == (9, 9, both, None)
    assert told["linear: bank four"] == (9, 0, ("samples",), None)
    assert told["linear: score clean"] == (12, 0, ("samples",), None)
    assert told["linear: score least"] == (6, 0, ("samples",), None)
    assert not [step for step, _ in lines if "later" in step]


def test_what_was_done_is_what_was_planned(finished: Finished) -> None:
    """Exact numbers of the plan over no store against what the run then counted, and bounds."""
    lines, steps = finished.planned["plan"], finished.results.steps
    for what in {line["what"] for line in lines if line["what"]} - {"index"}:
        planned = [(n["samples"], n["forward_passes"]) for n in lines if n["what"] == what]
        assert planned == [(s.samples, s.forward_passes) for s in steps if s.step == what]
    passes = finished.planned["forward_passes"]
    assert passes["exactly"] == 2 * (12 + 9)
    done = sum(s.forward_passes for s in steps if s.step.startswith("extract"))
    queries = [each.summary.queries or 0 for each in attacked(finished.results).values()]
    assert len(queries) == 2, "which do not count the padding of batches, as the workers do"
    done += sum(queries)
    assert passes["exactly"] < done <= passes["exactly"] + passes["at_most"]
    assert passes["at_most"] == sum(n["forward_passes"] for n in lines if n["bounds"])


def test_every_evaluation_and_its_numbers(finished: Finished) -> None:
    """Counts of the tables against the stored ranks, read here."""
    store = open_store(finished.config.store)
    evaluations = finished.results.evaluations
    assert [(e.taps, e.bank) for e in evaluations] == [
        ("preactivation", "four"),
        ("linear", "four"),
    ]
    for found in evaluations:
        assert list(measured(found)) == ["clean", "strong", "least"]
        for name, row in measured(found).items():
            votes = BlockElement.open(store, "votes", found.votes[name])
            blocks = range(votes.plan.blocks)
            ranks = np.concatenate([votes.read_array(TRUE_RANK, b) for b in blocks])
            hits = ranks[:, 0, found.k - 1] == 1
            success = np.array(votes.samples(["success"])["success"].to_pylist(), bool)
            assert row.attempted == len(hits)
            assert row.over_all.regroup_top1.correct == hits.sum()
            if name != "clean":
                assert row.success == success.sum() > 0
                assert over_success(row).regroup_top1.correct == hits[success].sum()
            cell = row.over_all.regroup_top1
            assert cell.interval95 == pytest.approx(wilson(cell.correct, cell.total))
        chosen = [r for r in found.accuracy_against_k if r.k == found.k]
        assert chosen[0].accuracy["clean"] == found.clean.over_all.regroup_top1
        assert [t.votes for t in found.tap_accuracy].count(True) == found.k


def test_the_store_keeps_what_came_of_it(finished: Finished) -> None:
    store = open_store(finished.config.store)
    assert study_names(store) == ["colours"]
    kept = read_results(store, "colours")
    assert kept == finished.results
    assert kept.plain() == json.loads((finished.output / "results.json").read_text())


def test_attacks_were_made_once_for_both_policies(finished: Finished) -> None:
    steps = [s.step.split()[0] for s in finished.results.steps]
    assert steps.count("attack") == 2
    store = open_store(finished.config.store)
    made = attacked(finished.results)
    strong = BlockElement.open(store, "adversarials", made["strong"].adversarials)
    assert (strong.plan.rows, strong.plan.block_rows) == (9, 4)
    least = BlockElement.open(store, "adversarials", made["least"].adversarials)
    assert (least.plan.rows, least.plan.block_rows) == (6, 256)
    assert len(store.elements("features")) >= 8, "two policies of train, val and two attacks"


def test_a_subset_is_an_index_of_its_name_under_the_model(finished: Finished) -> None:
    store = open_store(finished.config.store)
    (drawn,) = finished.results.subsets
    index = SampleIndex.open(store, drawn.index)
    assert (drawn.subset, index.name, drawn.samples, drawn.fewer) == ("V6", "V6", 6, {})
    labels = index.rows()["label"].to_pylist()
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]
    least = attacked(finished.results)["least"]
    assert (least.subset, least.summary.attempted) == ("V6", 6)
    assert least.adversarials.startswith("V6-pgd-minimal-")
    selection: Any = index.manifest["inputs"]["selection"]  # type: ignore[index]
    clean = {info.fingerprint for info in store.elements("features")}
    assert selection["correct_under"] in clean
    assert selection["subset"]["per_class"] == 2


def drawn_here(finished: Finished, subset: Subset) -> tuple[list[str], dict[str, int]]:
    """Ids of a subset of the clean images, drawn into the study's own store in memory."""
    store = overlaid(finished.config.store)
    votes = finished.results.evaluations[0].votes["clean"]
    inputs: Any = BlockElement.open(store, "votes", votes).manifest["inputs"]
    features = BlockElement.open(store, "features", inputs["features"])
    clean = finished.results.images[0]
    assert isinstance(clean, CleanImages)
    index = SampleIndex.open(store, clean.index)
    drawn = draw_subset(cast("Any", SimpleNamespace(store=store)), "S", subset, index, features)
    ids = drawn.index.rows()["sample_id"].to_pylist()
    every = index.rows()["sample_id"].to_pylist()
    assert ids == [each for each in every if each in ids], "the index's order"
    return ids, drawn.fewer


def test_subsets_are_drawn_by_class_limit_and_seed(finished: Finished) -> None:
    everything, fewer = drawn_here(finished, Subset())
    assert (len(everything), fewer) == (12, {})
    two = [drawn_here(finished, Subset(per_class=2, seed=seed))[0] for seed in range(5)]
    assert all(len(ids) == 6 for ids in two)
    assert len({tuple(ids) for ids in two}) > 1
    assert two[0] == drawn_here(finished, Subset(per_class=2))[0]
    assert set(drawn_here(finished, Subset(per_class=1))[0]) < set(two[0]), "more adds samples"
    one, _ = drawn_here(finished, Subset(per_class=3, classes=1))
    assert len(one) == 3
    assert len({Path(each).parent for each in one}) == 1
    red, _ = drawn_here(finished, Subset(class_names=("n00000001",)))
    assert len(red) == 4
    assert all("n00000001" in each for each in red)
    assert len(drawn_here(finished, Subset(per_class=3, limit=5))[0]) == 5


def test_classes_with_fewer_than_asked_are_told(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    ids, fewer = drawn_here(finished, Subset(per_class=5))
    assert len(ids) == 12
    assert fewer == {"n00000001": 4, "n00000002": 4, "n00000003": 4}
    assert "3 classes have fewer than 5 (n00000001: 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "words"), [("class_names=['n00000004']", "n00000004"), ("classes=4", "has 3 classes")]
)
def test_classes_that_the_dataset_lacks_are_refused(
    finished: Finished, run: Run, key: str, words: str
) -> None:
    told = run(*finished.args("--set", f"subsets.V6.{key}"))
    assert told.status == 2
    assert f"--set subsets.V6.{key.split('=')[0]}" in told.err
    assert words in told.err


def test_an_attack_that_was_not_run_has_no_number(finished: Finished) -> None:
    for found in finished.results.evaluations:
        folder = finished.output / f"{found.taps}-{found.bank}"
        later = [row for row in found.accuracy if row.images == "later"]
        assert later == [ImagesNotRun(images="later", reason="the study skips it")]
        assert all("later" not in row.accuracy for row in found.accuracy_against_k)
        for name in ("accuracy", "k"):
            rows = [row for row in rows_of(folder / f"{name}.csv") if row["images"] == "later"]
            assert rows
            assert {(r["state"], r["accuracy"], r["correct"]) for r in rows} == {
                ("not run", "", "")
            }
        lines = (folder / "accuracy.md").read_text().splitlines()
        cells = [line.split(" | ")[1:] for line in lines if line.startswith("| later ")]
        assert len(cells) == 2
        assert all({c.strip(" |") for c in line} <= {"not run", "1", "5"} for line in cells)


def test_tables_and_figures(finished: Finished) -> None:
    saved = json.loads((finished.output / "results.json").read_text())
    assert study_results(saved).evaluations == finished.results.evaluations
    for found in finished.results.evaluations:
        folder = finished.output / f"{found.taps}-{found.bank}"
        names = {path.name for path in folder.iterdir()}
        assert names == {
            f"{t}.{e}" for t in ("accuracy", "k", "taps") for e in ("md", "csv", "json")
        } | {f"{figure}.{e}" for figure in ("k", "taps") for e in ("png", "svg")}
        for figure in ("k.png", "taps.png"):
            assert (folder / figure).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        for table in ("accuracy.md", "k.md", "taps.md"):
            text = (folder / table).read_text()
            assert "protocol minimal, first epsilon 4/255" in text
            assert "protocol budget, epsilon 200/255" in text
        clean = rows_of(folder / "accuracy.csv")[0]
        assert (clean["images"], clean["measure"], clean["top"]) == ("clean", "softmax", "1")
        assert (float(clean["accuracy"]), clean["total"]) == (1.0, "12")
        taps = rows_of(folder / "taps.csv")
        assert len(taps) == 3 * len(found.tap_accuracy)


def test_run_again_does_nothing_and_says_so(finished: Finished, run: Run) -> None:
    before = files(Path(finished.config.store))
    again = run(*finished.args())
    assert again.status == 0
    assert "Everything was in the store already: nothing was computed again." in again.out
    assert "least: PGD, protocol minimal" in again.out
    assert "later" in again.out
    assert files(Path(finished.config.store)) == before
    saved = json.loads((finished.output / "results.json").read_text())
    assert study_results(saved).evaluations == finished.results.evaluations
    assert saved["forward_passes"] == 0


def test_results_of_a_later_release_are_not_replaced(
    finished: Finished, run: Run, tmp_path: Path
) -> None:
    """Refused before any work, even where there is some."""
    store = open_store(str(shutil.copytree(finished.config.store, tmp_path / "store")))
    later = {**finished.results.plain(), "schema_version": 3}
    write_study(store, "colours", later)
    elements = store.elements()
    where = ("--store", store.uri, "--output", str(tmp_path / "out"))
    refused = run(*finished.args(*where, "--set", "attacks.strong.seed=7"))
    assert refused.status == 1
    line = refused.err.strip().splitlines()[-1]
    assert line.startswith("regroup run: the results of colours in ")
    assert "have schema version 3, this release reads versions up to 2" in line
    assert store.elements() == elements
    assert read_study(store, "colours") == later
    assert not (tmp_path / "out").exists()


def test_plan_of_a_finished_study_holds_all_of_it(finished: Finished, run: Run) -> None:
    before = files(Path(finished.config.store))
    planned = run(*finished.args("--dry-run", "--json")).json["plan"]
    assert all(line["done"] for line in planned)
    held = {line["ref"] for line in planned}
    elements = open_store(finished.config.store).elements()
    made = {info.ref for info in elements if info.kind in ("adversarials", "votes", "banks")}
    assert made <= held
    assert files(Path(finished.config.store)) == before


def test_plan_counts_what_is_missing(finished: Finished, run: Run) -> None:
    """A dry run over other settings: what they share is held, what they change is not."""
    keys = ("--set", "attacks.strong.seed=5", "--set", "banks.four.seed=1")
    before = files(Path(finished.config.store))
    outcome = run(*finished.args("--dry-run", *keys))
    assert outcome.status == 0
    assert "nothing was computed or written" in outcome.out
    planned = run(*finished.args("--dry-run", "--json", *keys)).json["plan"]
    state = {line["step"]: (line["held"], line["blocks"], line["samples"]) for line in planned}
    assert state["attack least"] == (1, 1, 0)
    assert state["attack strong"] == (0, 3, 9)
    assert state["linear: clean"] == (1, 1, 0)
    passes = {line["step"]: line["forward_passes"] for line in planned}
    assert passes["attack strong"] == 9 * PGD(protocol="budget", steps=4).cost().forward > 9
    assert (passes["attack least"], passes["linear: clean"]) == (0, 0)
    bounds = {line["step"]: line["bounds"] for line in planned}
    assert (bounds["attack strong"], bounds["attack least"]) == (["forward_passes"], [])
    assert state["linear: score clean"] == (None, None, 12), "it needs the bank"
    assert files(Path(finished.config.store)) == before


def refused(*args: object) -> Any:
    raise IncompleteError("attack x: 1 of 3 blocks failed")


def test_an_attack_that_fails_leaves_the_others(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Run
) -> None:
    made: Callable[..., Any] = attack.attack_index

    def failing(session: Any, network: Any, index: Any, spec: Any, *how: Any) -> Any:
        step = refused if spec.protocol == "budget" else made
        return step(session, network, index, spec, *how)

    monkeypatch.setattr("regroup_pipelines.study.steps.attack_index", failing)
    outcome = run(*finished.args("--json", "--output", str(tmp_path / "out")))
    assert outcome.status == 1
    assert outcome.err.strip().splitlines()[-1].startswith("regroup run: not run: strong;")
    for found in study_results(outcome.json).evaluations:
        assert not_run(found)["strong"] == "attack x: 1 of 3 blocks failed"
        assert measured(found)["least"].attempted == 6
    assert StudyIncompleteError("x", {}).exit_status == 1


def test_an_interrupted_run_goes_on_from_what_it_has(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Run
) -> None:
    """SIGTERM after the first attack; the second run makes the rest and nothing twice."""
    made: Callable[..., Any] = attack.attack_index

    def interrupted(*args: Any) -> Any:
        made(*args)
        signal.raise_signal(signal.SIGTERM)

    where = ("--store", str(tmp_path / "s"), "--output", str(tmp_path / "o"))
    args = finished.args("--json", *where, "--set", "taps=['preactivation']")
    monkeypatch.setattr("regroup_pipelines.study.steps.attack_index", interrupted)
    stopped = run(*args)
    assert stopped.status == 143
    assert "run the same command again to continue" in stopped.err
    assert not (tmp_path / "o").exists()
    monkeypatch.setattr("regroup_pipelines.study.steps.attack_index", made)
    again = run(*args)
    assert again.status == 0
    blocks = [(s["step"].split()[0], s["blocks"], s["skipped"]) for s in again.json["steps"]]
    assert [b for b in blocks if b[0] == "attack"] == [("attack", 0, 3), ("attack", 1, 0)]
    assert study_results(again.json).evaluations == finished.results.evaluations[:1]


def test_datasets_of_other_classes_are_refused(finished: Finished, tmp_path: Path) -> None:
    other = colour_folder(tmp_path / "other")
    (other / "n00000003").rename(tmp_path / "away")
    config = RunConfig(
        study=finished.config.study,
        data=finished.config.data,
        store=str(tmp_path / "s"),
        set=(f"datasets.train=imagefolder:{other}",),
    )
    with pytest.raises(UsageError, match="its 2 classes are not the 3 of val"):
        main(config)
    assert not (tmp_path / "s").exists()


def test_tables_say_not_run_on_the_terminal(finished: Finished) -> None:
    table = accuracy_grid(finished.results.evaluations[0].accuracy)
    assert {str(cell) for column in table.columns[1:] for cell in [list(column.cells)[-1]]} == {
        "not run"
    }


def test_markdown_escapes_what_would_end_a_cell() -> None:
    table = Table("t", "T", ["a", "b"], [[text_cell("x|y"), text_cell(1)]])
    assert table.markdown.splitlines()[2] == "| x\\|y | 1 |"
