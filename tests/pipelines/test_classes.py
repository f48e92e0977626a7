"""--classes: a network of many classes on a dataset of few; labels go by name, not by position."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regroup.images.preprocessing import Preprocessing, decode_image
from regroup_pipelines.configs.options import ModelOptions
from regroup_pipelines.robust import load_robust_classifier
from regroup_store.format.element import BlockElement
from regroup_store.format.store import Store, open_store
from regroup_store.kinds.banks import read_bank
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.kinds.votes import PREDICTION, TRUE_RANK
from tests.pipelines.colours import BLUE, CLASSES, GREEN, MODEL, RED, SIDE, colour_folder
from tests.pipelines.conftest import Outcome, Run

ALL = ("--model", MODEL)
RESTRICTED = (*ALL, "--classes", "dataset")
ATTACK = ("--protocol", "budget", "--epsilon", "0.2", "--steps", "2")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"imagefolder:{colour_folder(tmp_path_factory.mktemp('photos') / 'photos')}"


def done(outcome: Outcome) -> Any:
    assert outcome.status == 0, outcome.err
    return outcome.json


def refusal(outcome: Outcome) -> str:
    assert outcome.status == 2
    assert "Traceback" not in outcome.err
    return outcome.err.strip().splitlines()[-1]


def column(store: Store, kind: str, ref: str, name: str) -> list[Any]:
    values: list[Any] = BlockElement.open(store, kind, ref).read_table(0, [name])[name].to_pylist()
    return values


def test_labels_map_to_the_models_classes_by_name(
    run: Run, local_ray: None, photos: str, tmp_path: Path
) -> None:
    common = ("--store", tmp_path / "s", "--dataset", photos, *ALL, "--json")
    found = done(run("extract", *common))
    attacked = done(run("attack", *common, *ATTACK))
    store = open_store(str(tmp_path / "s"))
    labels = column(store, "features", found["features"], "label")
    assert labels == np.repeat(CLASSES, 4).tolist()
    assert found["softmax_correct"] == 10, "two bright reds are taken for the unknown class"
    assert attacked["attempted"] == 10
    assert set(column(store, "adversarials", attacked["adversarials"], "label")) == set(CLASSES)
    features = BlockElement.open(store, "features", found["features"])
    assert features.inputs["labels"] == CLASSES, "the manifest says so"


def test_restricted_study_ranges_over_the_datasets_classes(
    run: Run, local_ray: None, photos: str, tmp_path: Path
) -> None:
    common = ("--store", tmp_path / "s", "--dataset", photos, *RESTRICTED, "--json")
    bank_ref = done(run("build-bank", *common, "--per-class", "4"))["bank"]
    attacked = done(run("attack", *common, *ATTACK))
    found = done(run("extract", *common))
    assert found["softmax_correct"] == 12, "no candidate outside the dataset"
    assert (attacked["attempted"], sum(s["blocks"] for s in found["steps"])) == (12, 0)

    store = open_store(str(tmp_path / "s"))
    bank = read_bank(store, bank_ref)
    assert bank.counts.tolist() == [4, 4, 4], "misclassified among all, these are drawn"
    assert bank.class_names == (RED, GREEN, BLUE)
    features = BlockElement.open(store, "features", found["features"])
    for inputs in (bank.inputs, features.inputs):
        assert (inputs["model"]["classes"], inputs["model"]["num_classes"]) == (CLASSES, 3)  # type: ignore[index]
    assert column(store, "features", features.ref, "label") == np.repeat([0, 1, 2], 4).tolist()
    assert all(sorted(top) == [0, 1, 2] for top in column(store, "features", features.ref, "top5"))

    made = attacked["adversarials"]
    assert set(column(store, "adversarials", made, "adversarial_class")) <= {-1, 0, 1, 2}
    table = done(run("evaluate", *common, "--bank", bank_ref, "--adversarials", made, "--k", "2"))
    assert table["rows"][0]["over_all"]["softmax_top1"]["correct"] == 12
    votes = BlockElement.open(store, "votes", table["votes"][0])
    assert votes.read_array(TRUE_RANK, 0).max() <= 3
    assert votes.read_array(PREDICTION, 0).max() <= 2
    again = done(run("rescore", "--store", tmp_path / "s", "--bank", bank_ref, "--json"))
    assert again["cost"]["forward_passes"] == 0

    model = ModelOptions(model=MODEL, classes="dataset")
    robust = load_robust_classifier(str(tmp_path / "s"), bank_ref, model, k=1)
    files = sorted(Path(photos.removeprefix("imagefolder:")).rglob("*.png"))
    images = np.stack([decode_image(file.read_bytes(), Preprocessing(SIDE)) for file in files])
    sums = robust(torch.from_numpy(images))
    assert tuple(sums.shape) == (12, 3)
    assert sums.argmax(1).tolist() == votes.read_array(PREDICTION, 0)[:, 0, 0].tolist()


def test_adversarials_of_other_labels_are_refused(
    run: Run, local_ray: None, photos: str, tmp_path: Path
) -> None:
    common = ("--store", tmp_path / "s", "--dataset", photos, "--json")
    bank = done(run("build-bank", *common, *RESTRICTED, "--per-class", "4"))["bank"]
    made = done(run("attack", *common, *ALL, *ATTACK))["adversarials"]
    told = refusal(
        run("evaluate", *common, *RESTRICTED, "--bank", bank, "--adversarials", made, "--k", "1")
    )
    assert made in told
    assert "--classes as in the attack" in told
    told = refusal(run("evaluate", *common, *ALL, "--bank", bank, "--k", "1"))
    assert "bank: restricted to 3 classes, here: all of its classes" in told


def test_bank_over_classes_without_images_is_refused_before_any_work(
    run: Run, photos: str, tmp_path: Path
) -> None:
    told = refusal(run("build-bank", "--store", tmp_path / "s", "--dataset", photos, *ALL))
    assert "3 of the 6 classes" in told
    assert "--classes dataset" in told
    assert not list((tmp_path / "s").glob("features/*"))


@pytest.mark.parametrize("options", [ALL, RESTRICTED])
def test_class_that_the_model_does_not_know(
    run: Run, photos: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    root = tmp_path / "photos"
    shutil.copytree(photos.removeprefix("imagefolder:"), root)
    (root / RED).rename(root / "n99999999")
    told = refusal(
        run("extract", "--store", tmp_path / "s", "--dataset", f"imagefolder:{root}", *options)
    )
    assert "n99999999" in told
    assert "6 classes" in told


@pytest.mark.parametrize("classes", ["all", "dataset"])
def test_wnids_need_a_model_that_names_its_classes(
    run: Run, photos: str, tmp_path: Path, classes: str
) -> None:
    nameless = ("--model", "tests.pipelines.colours:Nameless", "--classes", classes)
    told = refusal(run("extract", "--store", tmp_path / "s", "--dataset", photos, *nameless))
    assert "class_names" in told


def test_restriction_to_all_classes_changes_no_fingerprint(
    run: Run, local_ray: None, tmp_path: Path, weights: Path
) -> None:
    common = ("--store", tmp_path / "s", "--dataset", "digits:val", "--model", "digits-cnn")
    model = ("--weights", weights, "--json")
    first = done(run("extract", *common, *model))
    again = done(run("extract", *common, *model, "--classes", "dataset"))
    assert (first["features"], again["steps"][-1]["blocks"]) == (again["features"], 0)
    index = SampleIndex.open(open_store(str(tmp_path / "s")), first["index"])
    assert len(index.class_names) == 10


def test_fp16_attack_is_refused(run: Run, tmp_path: Path, weights: Path) -> None:
    common = ("--store", tmp_path / "s", "--dataset", "digits:val", "--model", "digits-cnn")
    told = refusal(run("attack", *common, "--weights", weights, "--dtype", "fp16"))
    assert "underflow" in told
