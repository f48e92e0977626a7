"""A block that always fails: given up with its reason, shown, and left out only when allowed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from regroup_cluster.dispatch.actor_pool import release_open_pools
from regroup_store.errors import GapError
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.features import accumulators_path
from tests.faults.conftest import Study, commits
from tests.faults.disturbed import Disturbance, disturb
from tests.pipelines.conftest import Outcome, Run

BLOCK, ROWS = 3, 64


def poison() -> None:
    raise RuntimeError("this block\nis poisoned")


@pytest.fixture
def copied(study: Study, tmp_path: Path) -> Study:
    """A copy of the study whose features, adversarials and votes are to be made again."""
    release_open_pools()
    store = shutil.copytree(study.store, tmp_path / "store")
    for kind in ("features", "adversarials", "votes", "banks"):
        shutil.rmtree(store / kind)
    return Study(store, study.weights, study.bank)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Disturbance:
    (tmp_path / "attempts").mkdir()
    return Disturbance(tmp_path / "attempts", faults={BLOCK: poison})


def extract(run: Run, study: Study, *options: object) -> Outcome:
    return run(
        *("extract", "--store", study.store, "--dataset", "digits:val", *study.model),
        *("--block-rows", ROWS, "--workers", 1, "--attempts", 2, "--json", *options),
    )


def steps(outcome: Outcome, name: str) -> dict[str, Any]:
    (step,) = (s for s in outcome.json["steps"] if s["step"].startswith(name))
    assert isinstance(step, dict)
    return step


def listed(run: Run, study: Study) -> dict[str, Any]:
    elements = run("ls", "--store", study.store, "--json").json["elements"]
    (features,) = (e for e in elements if e["kind"] == "features")
    assert isinstance(features, dict)
    return features


def test_a_poisoned_block_is_given_up_and_left_out_only_when_allowed(
    run: Run, copied: Study, poisoned: Disturbance
) -> None:
    """The whole way: refused, shown, allowed, evaluated, filled later."""
    with pytest.MonkeyPatch.context() as patch:
        disturb(patch, poisoned, "regroup_pipelines.steps.extraction.ExtractionWork")
        _refused(run, copied, poisoned)
        _allowed(run, copied, poisoned)
        gappy = _downstream(run, copied, poisoned)
    whole = _filled(run, copied)
    assert not {gappy["bank"], *gappy["votes"]} & {whole["bank"], *whole["votes"]}
    assert whole["rows"][0]["failed"] == 0
    assert run("verify", "--store", copied.store).status == 0


def _refused(run: Run, study: Study, poisoned: Disturbance) -> None:
    outcome = extract(run, study)
    assert outcome.status == 1
    assert "1 of" in outcome.err.splitlines()[-1]
    assert "is poisoned" in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err.splitlines()[-1]
    assert outcome.err.splitlines()[-1].endswith("--allow-missing to continue without them")
    assert poisoned.attempts()[BLOCK] == 2
    element = study.element("features")
    assert f"{BLOCK:05d}.json" not in commits(element)
    record = json.loads((element / "quarantine" / f"{BLOCK:05d}.json").read_bytes())
    assert (record["block"], record["attempts"]) == (BLOCK, 2)
    assert record["reason"].strip().endswith("is poisoned")
    info = listed(run, study)
    assert info["missing_blocks"] == [BLOCK]
    assert info["quarantined"][0]["reason"] == record["reason"]
    assert not info["finalised"]
    table = run("ls", "--store", study.store, "--reasons")
    assert f"failed block {BLOCK}" in table.out
    assert f"block {BLOCK}, 2 attempts: is poisoned" in table.out
    opened = BlockElement.open(open_store(str(study.store)), "features", "digits-val-digits-cnn")
    for read in (opened.samples, lambda: opened.finalise({}), lambda: opened.read_table(BLOCK)):
        with pytest.raises(GapError, match=f"{BLOCK}"):
            read()


def _allowed(run: Run, study: Study, poisoned: Disturbance) -> None:
    outcome = extract(run, study, "--allow-missing")
    assert outcome.status == 0, outcome.err
    assert f"{ROWS} of 599 samples are MISSING (block {BLOCK} of features/" in outcome.err
    assert outcome.json["missing_blocks"] == [BLOCK]
    assert outcome.json["failed"] == ROWS
    assert (steps(outcome, "extract")["blocks"], poisoned.attempts()[BLOCK]) == (0, 4)
    assert f"finalised without block {BLOCK}" in run("ls", "--store", study.store).out
    # What was allowed once is not tried again, and is said again.
    again = extract(run, study, "--allow-missing")
    assert poisoned.attempts()[BLOCK] == 4
    assert "are MISSING" in again.err
    features = BlockElement.open(open_store(str(study.store)), "features", "digits-val-digits-cnn")
    samples = features.samples().slice(BLOCK * ROWS, ROWS).to_pydict()
    assert set(samples["status"]) == {"failed"}
    assert set(samples["error"]) == {f"block {BLOCK} of features/{features.ref} is missing"}
    assert len(set(samples["sample_id"])) == ROWS
    assert set(samples["prediction"]) == {-1}
    verified = run("verify", "--store", study.store, "--json")
    assert verified.status == 0
    assert [f["what"] for f in verified.json["findings"]] == ["gap"]


def _evaluate(run: Run, study: Study, *options: object) -> dict[str, Any]:
    """A bank and votes of the features that are there."""
    built = run(
        *("build-bank", "--store", study.store, "--dataset", "digits:val", *study.model),
        *("--per-class", 1, "--workers", 1, "--json", *options),
    )
    assert built.status == 0, built.err
    outcome = run(
        *("evaluate", "--store", study.store, "--dataset", "digits:val", *study.model),
        *("--bank", built.json["bank"], "--workers", 1, "--json", *options),
    )
    assert outcome.status == 0, outcome.err
    assert isinstance(outcome.json, dict)
    return outcome.json


def _downstream(run: Run, study: Study, poisoned: Disturbance) -> dict[str, Any]:
    """Missing samples are no votes and no part of the bank, and count as failed."""
    report = _evaluate(run, study, "--allow-missing")
    assert (report["rows"][0]["attempted"], report["rows"][0]["failed"]) == (599 - ROWS, ROWS)
    votes = BlockElement.open(open_store(str(study.store)), "votes", report["votes"][0])
    assert votes.inputs["input_gaps"] == {"block_rows": ROWS, "blocks": [BLOCK]}
    assert (votes.read_array("prediction.zarr", BLOCK) == -1).all()
    assert votes.missing() == []
    rescored = run("rescore", "--store", study.store, "--bank", report["bank"], "--workers", 1)
    assert "are MISSING" in rescored.err
    return report


def _filled(run: Run, study: Study) -> dict[str, Any]:
    """Without the option the block is tried again; what was made without it is not taken for
    what is made with it."""
    before = commits(study.element("features"))
    outcome = extract(run, study)
    assert outcome.status == 0, outcome.err
    assert "missing_blocks" not in outcome.json
    assert outcome.json["failed"] == 0
    step = steps(outcome, "extract")
    assert (step["blocks"], step["forward_passes"]) == (1, ROWS)
    element = study.element("features")
    assert before.items() <= commits(element).items()
    assert not list((element / "quarantine").glob("*"))
    opened = BlockElement.open(open_store(str(study.store)), "features", "digits-val-digits-cnn")
    path = next(s.path for s in opened.arrays if s.path.startswith(accumulators_path("")))
    assert opened.read_array(path, BLOCK).sum() > 0
    return _evaluate(run, study)


def test_missing_adversarials_are_failed_rows_of_their_features(
    run: Run, copied: Study, study: Study, poisoned: Disturbance
) -> None:
    command = (
        *("attack", "--store", copied.store, "--dataset", "digits:val", *copied.model),
        *("--block-rows", 6, "--limit", 36, "--steps", 2, "--batch", 16, "--workers", 1),
        *("--attempts", 1, "--json"),
    )
    for kind in ("features", "banks"):
        shutil.copytree(study.store / kind, copied.store / kind)
    with pytest.MonkeyPatch.context() as patch:
        disturb(patch, poisoned, "regroup_pipelines.steps.attacking.AttackWork")
        outcome = run(*command, "--allow-missing")
    assert outcome.status == 0, outcome.err
    assert (outcome.json["missing_blocks"], outcome.json["failed"]) == ([BLOCK], 6)
    evaluate = (
        *("evaluate", "--store", copied.store, "--dataset", "digits:val", *copied.model),
        *("--bank", study.bank, "--adversarials", outcome.json["adversarials"]),
        *("--workers", 1, "--json"),
    )
    gappy = run(*evaluate)
    assert gappy.status == 0, gappy.err
    row = gappy.json["rows"][1]
    assert (row["attempted"], row["failed"]) == (30, 6)
    filled = run(*command)
    assert filled.status == 0
    assert steps(filled, "attack")["blocks"] == 1
    whole = run(*evaluate)
    assert (whole.json["rows"][1]["attempted"], whole.json["rows"][1]["failed"]) == (36, 0)
    assert whole.json["votes"][0] == gappy.json["votes"][0]
    assert whole.json["votes"][1] != gappy.json["votes"][1]
