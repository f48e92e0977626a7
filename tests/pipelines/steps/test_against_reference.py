"""Features, banks and votes against an independent oracle, and what must not change them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from regroup import reference
from regroup.bank import BankStatistics
from regroup.bank_samples import BankSampler
from regroup.models import ModelSpec, load_classifier
from regroup_pipelines.banks.build import build_bank
from regroup_pipelines.configs.options import (
    BankOptions,
    ClusterOptions,
    ModelOptions,
    VotingOptions,
)
from regroup_pipelines.results.records import KRow, MeasuredImages
from regroup_pipelines.steps.extraction import extract_index
from regroup_pipelines.steps.indexing import dataset_name, index_dataset
from regroup_pipelines.steps.network import open_network
from regroup_pipelines.steps.scoring import score
from regroup_pipelines.steps.session import Session
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.banks import read_bank
from regroup_store.kinds.features import accumulators_path
from regroup_store.kinds.votes import PREDICTION
from tests.pipelines.conftest import FinishedDemo, Run


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("digits:train", "digits-train"),
        ("digits", "digits"),
        ("imagefolder:/data/mini-imagenet/val", "mini-imagenet-val"),
        ("parquet:../cifar10/test-*.parquet", "cifar10-test"),
        ("imagefolder:.", "imagefolder"),
        ("imagenet:val:/data/imagenet/", "imagenet-val"),
        ("imagenet:train:s3://bucket/ILSVRC2012", "ilsvrc2012-train"),
    ],
)
def test_dataset_name(dataset: str, name: str) -> None:
    assert dataset_name(dataset) == name


def raw_preactivations(weights: Path, pixels: torch.Tensor) -> list[np.ndarray[Any, Any]]:
    """Inputs of every ReLU and the logits, by plain module hooks: no tap code of ours."""
    classifier = load_classifier(ModelSpec(name="digits-cnn", weights=str(weights)))
    seen: list[np.ndarray[Any, Any]] = []
    for module in classifier.modules():
        if isinstance(module, torch.nn.ReLU):
            module.register_forward_pre_hook(lambda _m, args: seen.append(args[0].numpy().copy()))
    with torch.inference_mode():
        logits = classifier(pixels)
    return [*seen, logits.numpy()]


def test_features_are_the_reference_accumulators(finished_demo: FinishedDemo) -> None:
    """Stored accumulators of adversarials against the literal oracle on the stored images."""
    store = open_store(finished_demo.store)
    adversarials = BlockElement.open(store, "adversarials", "digits-val-digits-cnn-pgd-minimal")
    features = BlockElement.open(store, "features", "digits-val-digits-cnn-pgd-minimal")
    images = adversarials.read_array("images.zarr", 0)[:6]
    responses = raw_preactivations(finished_demo.weights, torch.from_numpy(images))
    taps = finished_demo.taps
    assert len(responses) == len(taps)
    for tap, phi in zip(taps, responses, strict=True):
        stored = features.read_array(accumulators_path(tap), 0)[:6]
        # float32 batches of other sizes round differently: hence the tolerance.
        expected = reference.accumulator(phi, 1)
        np.testing.assert_allclose(stored, expected, rtol=2e-4, atol=2e-4)


def test_votes_are_the_reference_predictions(finished_demo: FinishedDemo) -> None:
    """Bank, divergences, ranks and Borda of the whole pipeline against the literal oracle."""
    store = open_store(finished_demo.store)
    bank = read_bank(store, "digits-train-digits-cnn")
    features = BlockElement.open(store, "features", "digits-val-digits-cnn-pgd-budget")
    accumulators = [features.read_array(accumulators_path(t), 0)[:8] for t in bank.taps]
    votes = BlockElement.open(store, "votes", "digits-val-digits-cnn-pgd-budget")
    stored = votes.read_array(PREDICTION, 0)[:8]
    for sample in range(8):
        for s, signs in enumerate(("both", "positive", "negative")):
            for k in (1, 3, len(bank.taps)):
                expected = reference.predict(
                    [a[sample] for a in accumulators], bank.mixtures, k=k, signs=signs
                )
                assert stored[sample, s, k - 1] == expected


def features_of(folder: Path, weights: Path, **options: Any) -> dict[str, np.ndarray[Any, Any]]:
    config = ClusterOptions(store=str(folder), **options)
    with Session(config) as session:
        network = open_network(ModelOptions(model="digits-cnn", weights=str(weights)))
        index = index_dataset(session, "digits:val")
        element = extract_index(session, network, index, batch=64)
        return {
            path: np.concatenate([element.read_array(path, b) for b in range(element.plan.blocks)])
            for path in (accumulators_path(name) for name, _ in network.taps)
        }


def test_features_do_not_depend_on_blocks_or_workers(
    local_ray: None, weights: Path, tmp_path: Path
) -> None:
    one = features_of(tmp_path / "a", weights, block_rows=64, workers=1)
    two = features_of(tmp_path / "b", weights, block_rows=128, workers=2)
    for path, accumulators in one.items():
        np.testing.assert_array_equal(accumulators, two[path])


def test_a_lost_commit_is_computed_again_and_nothing_else(
    local_ray: None, weights: Path, tmp_path: Path
) -> None:
    first = features_of(tmp_path, weights, block_rows=128)
    commit = next(tmp_path.glob("features/*/commits/00001.json"))
    commit.unlink()
    (commit.parent.parent / "summary.json").unlink()
    with Session(ClusterOptions(store=str(tmp_path), block_rows=128)) as session:
        network = open_network(ModelOptions(model="digits-cnn", weights=str(weights)))
        extract_index(session, network, index_dataset(session, "digits:val"), batch=64)
    step = session.ledger[-1]
    assert (step.blocks, step.forward_passes) == (1, 128)
    assert step.skipped > 0
    again = features_of(tmp_path, weights, block_rows=128)
    for path, accumulators in first.items():
        np.testing.assert_array_equal(accumulators, again[path])


def test_an_image_changed_since_indexing_is_a_failed_row(
    run: Run, local_ray: None, weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos" / "zero"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new("L", (8, 8), 60 * number).save(folder / f"{number}.png")
    with Session(ClusterOptions(store=str(tmp_path / "s"))) as session:
        index = index_dataset(session, f"imagefolder:{folder.parent}")
        Image.new("L", (8, 8), 255).save(folder / "1.png")
        network = open_network(ModelOptions(model="digits-cnn", weights=str(weights)))
        element = extract_index(session, network, index, batch=64)
        table = element.samples(["status", "error"]).to_pydict()
    assert table["status"] == ["ok", "failed", "ok"]
    assert "changed since it was indexed" in table["error"][1]


def test_divergence_tie_break_and_fewer_taps_need_no_forward_pass(
    finished_demo: FinishedDemo, run: Run, tmp_path: Path
) -> None:
    taps = finished_demo.taps
    store = tmp_path / "store"  # other tests find the demo's store as the demo left it
    shutil.copytree(finished_demo.store, store)
    outcome = run(
        "rescore", "--store", store, "--bank", "digits-train-digits-cnn",
        "--tie-break", "divergence", "--voting-taps", taps[-2], taps[-1], "--k", "2", "--json",
    )  # fmt: skip
    assert outcome.status == 0
    assert outcome.json["cost"]["forward_passes"] == 0
    assert [row["k"] for row in outcome.json["rows"]] == [2, 2, 2]


def test_commands_one_after_the_other(
    run: Run, local_ray: None, weights: Path, tmp_path: Path
) -> None:
    """The flow of `regroup --help`, each command on its own, from an imagefolder of none."""
    store, model = tmp_path / "s", ("--model", "digits-cnn", "--weights", weights)
    common = ("--store", store, "--json")
    index = run("index-dataset", *common, "--dataset", "digits:val").json
    assert index["samples"] > 500
    bank = run("build-bank", *common, "--dataset", "digits:train", *model, "--per-class", 20).json
    attack = run(
        "attack", *common, "--dataset", "digits:val", *model, "--epsilon", "16/255",
        "--steps", 5, "--limit", 20,
    ).json  # fmt: skip
    assert attack["attempted"] == 20
    assert "steps=5" in attack["attack"]
    report = run(
        "evaluate", *common, "--dataset", "digits:val", *model, "--bank", bank["bank"],
        "--adversarials", attack["adversarials"],
    ).json  # fmt: skip
    clean, attacked = (MeasuredImages.model_validate(row) for row in report["rows"])
    assert (clean.attempted, attacked.attempted) == (index["samples"], 20)
    assert (clean.success, attacked.success) == (None, attack["success"])
    assert {clean.k, attacked.k} == {report["rule"]["k"]}
    assert (clean.over_success, attacked.over_all.softmax_top1.total) == (None, 20)
    rescored = run("rescore", *common, "--bank", bank["bank"], "--k", report["rule"]["k"]).json
    assert rescored["cost"]["forward_passes"] == 0
    both = next(KRow.model_validate(row) for row in rescored["rows"] if row["signs"] == "both")
    found = [both.accuracy[row.images] for row in (clean, attacked)]
    assert found == [clean.over_all.regroup_top1, attacked.accuracy("S", "regroup_top1")]
    listing = run("ls", *common).json
    kinds = [element["kind"] for element in listing["elements"]]
    assert set(kinds) == {
        "listings", "digests", "indexes", "features", "adversarials", "votes", "banks",
    }  # fmt: skip
    assert all(element["finalised"] for element in listing["elements"])
    table = run("ls", "--store", store)
    assert "digits-val" in table.out


def test_softmax_and_uniform_banks_share_features(
    local_ray: None, weights: Path, tmp_path: Path
) -> None:
    with Session(ClusterOptions(store=str(tmp_path))) as session:
        network = open_network(ModelOptions(model="digits-cnn", weights=str(weights)))
        index = index_dataset(session, "digits:train")
        first = build_bank(session, network, index, BankOptions(per_class=5), 64)
        entries = len(session.ledger)
        second = build_bank(
            session, network, index, BankOptions(per_class=5, weighting="uniform"), 64
        )
        assert first != second
        assert sum(step.forward_passes for step in session.ledger[entries:]) == 0
        features = extract_index(session, network, index, 64)
        votes = score(session, features, read_bank(session.store, second), VotingOptions())
        assert votes.plan.rows == features.plan.rows
    shutil.rmtree(tmp_path)


def bank_samples(demo: FinishedDemo) -> tuple[BlockElement, list[int], dict[str, list[Any]]]:
    """The features tried for the demo's bank, its rows (50 a class), and the samples' columns."""
    features = BlockElement.open(
        open_store(demo.store), "features", "digits-train-candidates-digits-cnn"
    )
    samples = features.samples(["sample_id", "label", "prediction", "confidence"]).to_pydict()
    sampler = BankSampler(10, 50, seed=0)
    rows = range(len(samples["label"]))
    sampler.update(rows, *(samples[c] for c in ("sample_id", "label", "prediction", "confidence")))
    return features, sampler.finish().rows.tolist(), samples


def test_bank_is_the_references_mixture(finished_demo: FinishedDemo) -> None:
    """Eq. 1 by loops over the stored accumulators of the chosen samples."""
    features, rows, samples = bank_samples(finished_demo)
    bank = read_bank(open_store(finished_demo.store), "digits-train-digits-cnn")
    assert bank.counts.tolist() == [50] * 10
    blocks = range(features.plan.blocks)
    path = accumulators_path(bank.taps[0])
    accumulators = np.concatenate([features.read_array(path, b) for b in blocks])
    for label in (0, 7):
        mine = [row for row in rows if samples["label"][row] == label]
        confidences = [samples["confidence"][row] for row in mine]
        weights = reference.class_weights([label] * len(mine), confidences, "softmax")
        for sign in (0, 1):
            pmfs = [reference.pmf(accumulators[row, sign]) for row in mine]
            expected = reference.mixture(pmfs, weights)
            np.testing.assert_allclose(bank.mixtures[0][sign, label], expected, rtol=1e-12)


def test_bank_is_the_merge_of_its_blocks_in_any_order(finished_demo: FinishedDemo) -> None:
    """What dask reduced is what `BankStatistics` merges, within 1e-12 relative."""
    features, rows, samples = bank_samples(finished_demo)
    stored = read_bank(open_store(finished_demo.store), "digits-train-digits-cnn")
    taps = [(tap, m.shape[-1]) for tap, m in zip(stored.taps, stored.mixtures, strict=True)]
    total = BankStatistics.zeros(taps, 10)
    for block in reversed(range(features.plan.blocks)):
        span = features.plan.span(block)
        mine = [row for row in rows if span.start <= row < span.stop]
        part = BankStatistics.zeros(taps, 10)
        part.update(
            [
                features.read_array(accumulators_path(tap), block)[np.array(mine) - span.start]
                for tap in stored.taps
            ],
            np.array([samples["label"][row] for row in mine]),
            np.array([samples["confidence"][row] for row in mine], np.float32),
        )
        total.merge(part)
    for merged, mixtures in zip(total.finalise().mixtures, stored.mixtures, strict=True):
        np.testing.assert_allclose(merged, mixtures, rtol=1e-12)
