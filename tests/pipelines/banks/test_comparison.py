"""regroup rescore over banks of other recipes: from stored features alone, or refused."""

from __future__ import annotations

import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regroup.bank import DELTA, pmf
from regroup_pipelines.banks.build import build_bank
from regroup_pipelines.banks.comparison import spread
from regroup_pipelines.configs.options import BankOptions, ClusterOptions, ModelOptions
from regroup_pipelines.steps.indexing import index_dataset
from regroup_pipelines.steps.network import open_network
from regroup_pipelines.steps.session import Session
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.banks import StoredBank, read_bank
from regroup_store.kinds.features import accumulators_path
from tests.pipelines.conftest import FinishedDemo, Run

BANK = "digits-train-digits-cnn"
ATTACKED = "digits-val-digits-cnn-pgd-minimal"


@pytest.fixture
def store(finished_demo: FinishedDemo, tmp_path: Path) -> Path:
    """The demo's store, whose bank has 50 samples per class drawn with seed 0."""
    shutil.copytree(finished_demo.store, tmp_path / "store")
    return tmp_path / "store"


def rescored(run: Run, store: Path, *more: object) -> Any:
    outcome = run(
        "rescore", "--store", store, "--bank", BANK, "--features", ATTACKED,
        "--k", 5, "--signs", "both", "--json", *more,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    return outcome.json


def opened(store: Path, ref: str) -> StoredBank:
    return read_bank(open_store(str(store)), ref)


def test_banks_are_those_of_build_bank_and_cost_no_forward_pass(
    run: Run, local_ray: None, store: Path, weights: Path
) -> None:
    found = rescored(run, store, "--per-class", 5, 20, 50, "--weighting", "softmax", "uniform")
    recipes = [(row["recipe"]["per_class"], row["recipe"]["weighting"]) for row in found["rows"]]
    assert recipes == [(n, w) for n in (5, 20, 50) for w in ("softmax", "uniform")]
    assert (found["cost"]["forward_passes"], found["cost"]["banks"]) == (0, 6)
    network = open_network(ModelOptions(model="digits-cnn", weights=str(weights)))
    with Session(ClusterOptions(store=str(store))) as session:
        index = index_dataset(session, "digits:train")
        for row in found["rows"]:
            recipe = row["recipe"]
            options = BankOptions(per_class=recipe["per_class"], weighting=recipe["weighting"])
            assert build_bank(session, network, index, options, 64) == row["bank"]
        assert not any(step.forward_passes or step.blocks for step in session.ledger)
    again = rescored(run, store, "--per-class", 5, 20, 50, "--weighting", "softmax", "uniform")
    assert again["rows"] == found["rows"]
    assert not any(step["blocks"] for step in again["steps"])


def test_a_variant_leaves_the_bank_its_name(run: Run, local_ray: None, store: Path) -> None:
    (row,) = rescored(run, store, "--per-class", 5, "--deltas", 1e-10)["rows"]
    assert row["bank"].startswith(f"{BANK}-per-class-5-delta-1e-10-")
    assert len(rescored(run, store)["rows"]) == 1, "the name is the first bank's alone"


def test_delta_is_of_the_bank_and_of_the_samples(run: Run, local_ray: None, store: Path) -> None:
    recipe = ("--per-class", 2, "--weighting", "uniform", "--deltas", 1e-20, 1e-3)
    plain, smoothed = (opened(store, row["bank"]) for row in rescored(run, store, *recipe)["rows"])
    for y, pair in enumerate(_samples(store, plain)):
        expected = sum(pmf(accumulators, 1e-3) for accumulators in pair) / 2
        np.testing.assert_allclose(smoothed.mixtures[-1][:, y], expected, atol=1e-12)
    made = open_store(str(store))
    votes = [BlockElement.open(made, "votes", info.ref).inputs for info in made.elements("votes")]
    (scoring,) = [each["scoring"] for each in votes if each["bank"] == smoothed.fingerprint]
    assert scoring["delta"] == 1e-3  # type: ignore[index]


def test_a_replicate_is_the_weighted_mean_of_resampled_samples(
    run: Run, local_ray: None, store: Path
) -> None:
    """Each row of a replicate's mixtures is a mixture of as many of the class's own samples."""
    found = rescored(run, store, "--per-class", 2, "--weighting", "uniform", "--bootstrap", 6)
    (row,) = found["rows"]
    assert row["recipe"] == {"per_class": 2, "weighting": "uniform", "seed": 0, "delta": DELTA}
    assert row["accuracy"].keys() == row["bootstrap"].keys() == {ATTACKED}
    varied = row["bootstrap"][ATTACKED]
    assert varied == spread(varied["accuracies"]).plain()
    assert len(varied["accuracies"]) == varied["replicates"] == 6
    original = opened(store, row["bank"])
    pairs = [[pmf(each) for each in pair] for pair in _samples(store, original)]
    replicates = [
        opened(store, info.ref)
        for info in open_store(str(store)).elements("banks")
        if "replicate" in info.ref
    ]
    assert len({bank.fingerprint for bank in replicates}) == 6
    seen = set()
    for bank in replicates:
        assert bank.counts.tolist() == [2] * 10
        for y, (first, second) in enumerate(pairs):
            options = (first, (first + second) / 2, second)
            near = [np.allclose(bank.mixtures[-1][:, y], each, atol=1e-12) for each in options]
            assert sum(near) == 1
            seen.add(near.index(True))
    assert seen == {0, 1, 2}, "of two samples: one twice, each once, the other twice"


def _samples(store: Path, bank: StoredBank) -> list[list[Any]]:
    """Accumulators (2, C), at the last tap, of the two samples of each class of a uniform bank.

    Found among all candidates by the mean of their PMFs being the class's mixture.
    """
    (info,) = [i for i in open_store(str(store)).elements("features") if "candidates" in i.ref]
    features = BlockElement.open(open_store(str(store)), "features", info.ref)
    table = features.samples(["label", "prediction"]).to_pydict()
    path, labels = accumulators_path(bank.taps[-1]), np.array(table["label"])
    values = np.concatenate([features.read_array(path, b) for b in range(features.plan.blocks)])
    right = np.flatnonzero(labels == np.array(table["prediction"])).tolist()
    found = {
        int(labels[a]): [values[a], values[b]]
        for a, b in combinations(right, 2)
        if labels[a] == labels[b]
        and np.allclose(
            (pmf(values[a]) + pmf(values[b])) / 2, bank.mixtures[-1][:, labels[a]], atol=1e-12
        )
    }
    return [found[y] for y in range(10)]


def test_spread_by_hand() -> None:
    found = spread([0.5, 0.6, 0.7, 0.8, 0.9])
    assert (found.replicates, round(found.mean, 12)) == (5, 0.7)
    # (0.04 + 0.01 + 0 + 0.01 + 0.04) / 4 = 0.025
    assert found.deviation == pytest.approx(0.025**0.5)
    # Linear between order statistics: 2.5 % of 4 gaps of 0.1 is 0.01.
    assert found.interval95 == pytest.approx([0.51, 0.89])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--per-class", 500), "takes images that were never extracted ("),
        (("--bank-seeds", 0, 7), "`regroup build-bank --per-class 50 --bank-seed 7`"),
        (("--per-class", 0), "--per-class 0: a bank needs at least 1 sample per class"),
        (("--deltas", 0), "--deltas 0: give a delta above 0 and at most 1"),
        (("--deltas", 1e-9, "--delta", 1e-9), "give --deltas alone"),
        (("--bootstrap", 1), "--bootstrap 1: give 2 replicates or more"),
        (("--bootstrap", -2), "--bootstrap -2: give 2 replicates or more"),
    ],
)
def test_what_cannot_be_is_one_sentence_before_any_work(
    options: tuple[object, ...], said: str, run: Run, store: Path
) -> None:
    before = {info.ref for info in open_store(str(store)).elements("banks")}
    outcome = run("rescore", "--store", store, "--bank", BANK, *options)
    assert outcome.status == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert {info.ref for info in open_store(str(store)).elements("banks")} == before


def test_a_replicate_is_no_bank_to_draw_from(run: Run, local_ray: None, store: Path) -> None:
    rescored(run, store, "--bootstrap", 2)
    outcome = run(
        "rescore", "--store", store, "--bank", f"{BANK}-replicate-0", "--per-class", 3
    )  # fmt: skip
    assert (outcome.status, "is a bootstrap replicate" in outcome.err) == (2, True)


def test_features_that_are_gone_are_said(run: Run, store: Path) -> None:
    for folder in (store / "features").glob("*-candidates-*"):
        shutil.rmtree(folder)
    outcome = run("rescore", "--store", store, "--bank", BANK, "--per-class", 5)
    assert outcome.status == 2
    assert "the features that the bank" in outcome.err
    assert "no longer in the store" in outcome.err
