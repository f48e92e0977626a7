"""regroup rescore --rule: votes by every rule from the store, against the rule itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regroup.voting import RULES, RuleScorer
from regroup_cluster.workers.scoring import load_bank
from regroup_pipelines.configs.options import ClusterOptions, VotingOptions
from regroup_pipelines.errors import UsageError
from regroup_pipelines.steps.scoring import score
from regroup_pipelines.steps.session import Session
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.banks import read_bank
from regroup_store.kinds.features import accumulators_path
from regroup_store.kinds.votes import PREDICTION, TRUE_RANK
from tests.pipelines.conftest import FinishedDemo, Run

BANK = "digits-train-digits-cnn"
CLEAN, ATTACKED = "digits-val-digits-cnn", "digits-val-digits-cnn-pgd-minimal"


@pytest.fixture
def store(finished_demo: FinishedDemo, tmp_path: Path) -> Path:
    """The demo's store, without votes."""
    shutil.copytree(finished_demo.store, tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "votes")
    return tmp_path / "store"


def rescored(run: Run, store: Path, *more: object) -> Any:
    outcome = run("rescore", "--store", store, "--bank", BANK, "--json", *more)
    assert outcome.status == 0, outcome.err
    return outcome.json


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "borda"])
def test_votes_are_those_of_the_rule_without_a_forward_pass(
    rule: Any, run: Run, local_ray: None, store: Path
) -> None:
    found = rescored(run, store, "--rule", rule, "--features", ATTACKED)
    assert found["cost"]["forward_passes"] == 0
    opened = open_store(str(store))
    made = [BlockElement.open(opened, "votes", info.ref) for info in opened.elements("votes")]
    (votes,) = (each for each in made if each.inputs["scoring"]["rule"] == rule)  # type: ignore[index]
    features = BlockElement.open(opened, "features", ATTACKED)
    bank = read_bank(opened, BANK)
    weights: Any = votes.inputs["scoring"].get("weights")  # type: ignore[attr-defined]
    assert (weights is None) == (rule != "weighted-borda")
    scorer = RuleScorer(load_bank(str(store), BANK, bank.taps), rule, weights)
    table = features.read_table(0, ["label", "status"]).to_pydict()
    ok = np.array(table["status"]) == "ok"
    accumulators = [features.read_array(accumulators_path(tap), 0)[ok] for tap in bank.taps]
    expected = scorer.votes(accumulators, np.array(table["label"])[ok])
    np.testing.assert_array_equal(votes.read_array(PREDICTION, 0)[ok], expected.prediction)
    np.testing.assert_array_equal(votes.read_array(TRUE_RANK, 0)[ok], expected.true_rank)
    again = rescored(run, store, "--rule", rule, "--features", ATTACKED)
    assert again["rows"] == found["rows"]
    assert not any(step["blocks"] for step in again["steps"])


def test_taps_are_weighed_by_the_clean_votes_of_the_same_bank(
    run: Run, local_ray: None, store: Path
) -> None:
    outcome = run(
        "rescore", "--store", store, "--bank", BANK, "--features", ATTACKED,
        "--rule", "weighted-borda", "--json",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    opened = open_store(str(store))
    made = [BlockElement.open(opened, "votes", info.ref) for info in opened.elements("votes")]
    (clean,) = (each for each in made if each.name == CLEAN)
    (attacked,) = (each for each in made if each.name == ATTACKED)
    assert f"weighted by their accuracy in the votes {clean.ref}" in outcome.err
    summary: Any = clean.summary()
    weights = attacked.inputs["scoring"]["weights"]  # type: ignore[index]
    assert weights == summary["correct"]["tap_top1"]["both"]
    assert len(set(weights)) > 1


def test_bordas_votes_keep_their_fingerprint(
    finished_demo: FinishedDemo, local_ray: None, store: Path
) -> None:
    before = {info.ref for info in open_store(str(finished_demo.store)).elements("votes")}
    with Session(ClusterOptions(store=str(store))) as session:
        features = BlockElement.open(session.store, "features", CLEAN)
        votes = score(session, features, read_bank(session.store, BANK), VotingOptions())
        assert votes.ref in before


def test_weights_without_clean_features_are_refused(run: Run, local_ray: None, store: Path) -> None:
    for folder in (store / "features").glob("digits-val-digits-cnn-*"):
        if "pgd" not in folder.name:
            shutil.rmtree(folder)
    outcome = run(
        "rescore", "--store", store, "--bank", BANK, "--features", ATTACKED,
        "--rule", "weighted-borda",
    )  # fmt: skip
    assert outcome.status == 2
    assert "no features of the clean images that" in outcome.err
    assert "Traceback" not in outcome.err


def test_taps_that_get_nothing_right_weigh_nothing(
    local_ray: None, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = BlockElement.summary

    def nothing_right(element: BlockElement) -> Any:
        found: Any = stored(element)
        if element.kind == "votes" and found is not None:
            hits = found["correct"]["tap_top1"]
            hits["both"] = [0] * len(hits["both"])
        return found

    monkeypatch.setattr(BlockElement, "summary", nothing_right)
    with Session(ClusterOptions(store=str(store))) as session:
        features = BlockElement.open(session.store, "features", ATTACKED)
        with pytest.raises(UsageError, match="weighted-borda has no weights: choose another"):
            score(
                session,
                features,
                read_bank(session.store, BANK),
                VotingOptions(rule="weighted-borda"),
            )


def test_an_unknown_rule_is_told_with_those_that_are_there(run: Run, store: Path) -> None:
    outcome = run("rescore", "--store", store, "--bank", BANK, "--rule", "schulze")
    assert outcome.status == 2
    assert "median-rank" in outcome.err
