"""A bank from as few forward passes as it takes, whatever the store holds already."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regroup.bank_samples import BankSamples
from regroup.candidates import first_depth, next_depths
from regroup_pipelines.banks.build import build_bank
from regroup_pipelines.banks.recipe import BankRecipe
from regroup_pipelines.banks.rounds import BankDraw, draw_bank
from regroup_pipelines.banks.variants import BankOrigin, minimal_depths
from regroup_pipelines.configs.options import BankOptions, ClusterOptions, ModelOptions
from regroup_pipelines.steps.extraction import extract_index
from regroup_pipelines.steps.indexing import index_dataset
from regroup_pipelines.steps.labels import network_for
from regroup_pipelines.steps.network import open_network
from regroup_pipelines.steps.session import Session
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.banks import read_bank
from tests.pipelines.colours import BLUE, GREEN, MODEL, RED, SIDE
from tests.pipelines.conftest import Outcome, Run

CLASSES = (RED, GREEN, BLUE)
IMAGES = 40
RIGHT = {RED: 40, GREEN: 40, BLUE: 10}


def bank(run: Run, store: Path, *options: object) -> Outcome:
    outcome = run("build-bank", "--store", store, *options)
    assert outcome.status == 0, outcome.err
    return outcome


def passes(outcome: Outcome) -> int:
    return sum(step["forward_passes"] for step in outcome.json["steps"])


def mixtures(store: Path, ref: str) -> list[Any]:
    return list(read_bank(open_store(str(store)), ref).mixtures)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images a class; of the blue ones only every fourth is blue, the others are green."""
    root = tmp_path_factory.mktemp("photos") / "photos"
    for channel, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(IMAGES):
            colour = [10, 10, 10]
            wrong = name == BLUE and number % 4
            colour[1 if wrong else channel] = 40 + number
            Image.new("RGB", (SIDE, SIDE), tuple(colour)).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def colours(photos: Path) -> tuple[object, ...]:
    model = ("--model", MODEL, "--classes", "dataset", "--json", "--workers", 1)
    return ("--dataset", f"imagefolder:{photos}", *model)


def drawn_ids(draw: BankDraw) -> set[str]:
    found: set[str] = set()
    for start, features in zip(draw.starts, draw.features, strict=True):
        names = features.samples(["sample_id"])["sample_id"].to_pylist()
        rows = draw.samples.rows - start
        found |= {names[row] for row in rows.tolist() if 0 <= row < len(names)}
    return found


class Draws:
    """Draws from digits:train into one store, one job for all; what each of them cost."""

    def __init__(self, session: Session, weights: Path) -> None:
        self.session, self.network = (
            session,
            open_network(ModelOptions(model="digits-cnn", weights=str(weights))),
        )
        self.index = index_dataset(session, "digits:train")

    def ids(self, per_class: int, seed: int = 0) -> tuple[int, set[str]]:
        """Forward passes, and which samples were drawn."""
        entries, options = (
            len(self.session.ledger),
            BankOptions(per_class=per_class, bank_seed=seed),
        )
        draw = draw_bank(self.session, self.network, self.index, options, 64)
        found = drawn_ids(draw)
        assert draw.counts.tolist() == [per_class] * 10
        assert len(found) == 10 * per_class
        return sum(step.forward_passes for step in self.session.ledger[entries:]), found

    def bank(self, options: BankOptions) -> str:
        return build_bank(self.session, self.network, self.index, options, 64)


def test_next_bank_extracts_only_what_no_other_has(
    local_ray: None, weights: Path, tmp_path: Path
) -> None:
    recipes = ((4, 0), (2, 0), (8, 0), (8, 1), (4, 0))
    options = BankOptions(per_class=8, bank_seed=1)
    with Session(ClusterOptions(store=str(tmp_path / "rounds"), block_rows=32)) as session:
        rounds = Draws(session, weights)
        passes, drawn = zip(*(rounds.ids(*recipe) for recipe in recipes), strict=True)
        refs = [rounds.bank(options), rounds.bank(replace(options, weighting="uniform"))]
        refs.append(rounds.bank(options))
        assert (session.ledger[-1].blocks, refs[2]) == (0, refs[0])
    # first_depth(4, 0.75) is 7 and first_depth(8, 0.75) is 13; few digits are misclassified.
    assert 70 <= passes[0] <= 80
    assert 60 <= passes[2] <= 70
    assert 0 < passes[3] <= 140
    assert (passes[1], passes[4]) == (0, 0)
    assert len(set(refs)) == 2

    with Session(ClusterOptions(store=str(tmp_path / "whole"), block_rows=32)) as session:
        whole = Draws(session, weights)
        extract_index(session, whole.network, whole.index, 64)
        for recipe, ids in zip(recipes, drawn, strict=True):
            assert whole.ids(*recipe) == (0, ids), "what everything gives, without a forward pass"
        expected = mixtures(tmp_path / "whole", whole.bank(options))
    for found, mixture in zip(mixtures(tmp_path / "rounds", refs[0]), expected, strict=True):
        np.testing.assert_allclose(found, mixture, rtol=1e-4, atol=1e-7)


def test_top_up_rounds_are_for_classes_that_lack_samples(
    run: Run, local_ray: None, colours: tuple[object, ...], tmp_path: Path
) -> None:
    made = bank(run, tmp_path, *colours, "--per-class", 8)
    assert made.json["samples"] == dict.fromkeys(CLASSES, 8)
    tried = dict.fromkeys(CLASSES, 0)
    store = open_store(str(tmp_path))
    for info in store.elements("features"):
        features = BlockElement.open(store, "features", info.ref)
        for label in features.samples(["label"])["label"].to_pylist():
            tried[CLASSES[label]] += 1
    # first_depth(8, 0.75) = 13
    assert (tried[RED], tried[GREEN]) == (13, 13)
    assert 13 < tried[BLUE] <= IMAGES
    assert passes(made) == sum(tried.values())
    assert "of 120 images, of 1 classes" in made.err
    verified = run("verify", "--store", tmp_path, "--json")
    assert (verified.status, verified.json["findings"]) == (0, [])


def test_a_class_that_runs_out_is_reported_with_how_many_it_has(
    run: Run, local_ray: None, colours: tuple[object, ...], tmp_path: Path
) -> None:
    options = (*colours, "--per-class", 12, "--expected-accuracy", 1)
    made = bank(run, tmp_path, *options)
    assert made.json["samples"] == {RED: 12, GREEN: 12, BLUE: RIGHT[BLUE]}
    said = f"1 of 3 classes RAN OUT of images before they had 12 correctly classified ones: {BLUE}"
    assert f"{said} 10 (of 40 images)" in made.err
    assert f"{said} 10 (of 40 images)" in bank(run, tmp_path, *options).err, "and again"


def test_just_as_deep_as_needed_draws_what_rounds_do(
    run: Run, local_ray: None, colours: tuple[object, ...], tmp_path: Path
) -> None:
    """Of the blue images, of which few are right, it has to go down several times."""
    made = bank(run, tmp_path, *colours, "--per-class", 8)
    with Session(ClusterOptions(store=str(tmp_path))) as session:
        stored = read_bank(session.store, made.json["bank"])
        origin, own = BankOrigin.of(session, stored), BankRecipe.of_bank(stored)
        for size in range(1, 9):
            recipe = replace(own, per_class=size)
            near = origin._look(recipe, size, minimal_depths)
            far = origin._look(recipe, first_depth(size, 0.75), next_depths)
            assert (near.unknown, far.unknown) == ([], [])
            draws = [each.draw(stored.class_names) for each in (near, far)]
            assert drawn_ids(draws[0]) == drawn_ids(draws[1])
            assert draws[0].counts.tolist() == [size] * 3
            assert (draws[0].tried <= draws[1].tried).all()


def test_an_interrupted_round_goes_on(
    run: Run, local_ray: None, colours: tuple[object, ...], tmp_path: Path
) -> None:
    options = (*colours, "--per-class", 8, "--block-rows", 10)
    made = bank(run, tmp_path, *options)
    shutil.rmtree(tmp_path / "banks")
    (first,) = [
        folder
        for folder in (tmp_path / "features").iterdir()
        if json.loads((folder / "manifest.json").read_text())["rows"] == 39
    ]
    (first / "summary.json").unlink()
    (first / "commits" / "00002.json").unlink()
    again = bank(run, tmp_path, *options)
    assert (passes(again), again.json["bank"]) == (10, made.json["bank"])


def test_candidates_are_no_split_to_score_and_are_repaired_by_build_bank(
    run: Run, local_ray: None, colours: tuple[object, ...], tmp_path: Path
) -> None:
    made = bank(run, tmp_path, *colours, "--per-class", 3)
    nothing = run("rescore", "--store", tmp_path, "--bank", made.json["bank"])
    assert nothing.status == 2
    assert "the store holds no features" in nothing.err
    assert run("extract", "--store", tmp_path, *colours).status == 0
    scored = run("rescore", "--store", tmp_path, "--bank", made.json["bank"], "--json")
    assert scored.json["cost"]["samples"] == 120
    (part,) = (tmp_path / "features").glob("*-candidates-*/samples/part-00000.parquet")
    part.write_bytes(b"PAR1")
    repaired = run("repair", "--store", tmp_path, "--json")
    (command,) = repaired.json["commands"]
    assert command.startswith(f"regroup build-bank --store {tmp_path} --dataset imagefolder:")
    assert MODEL in command


def test_bad_options_are_one_sentence(
    run: Run, local_ray: None, colours: tuple[object, ...], tmp_path: Path
) -> None:
    for option, value in (("--expected-accuracy", 0), ("--per-class", 0)):
        outcome = run("build-bank", "--store", tmp_path, *colours, option, value)
        assert outcome.status == 2
        assert "Traceback" not in outcome.err
        assert "at most 1" in outcome.err or "at least 1" in outcome.err


def test_gaps_of_several_features_are_named_apart(photos: Path, tmp_path: Path) -> None:
    def features(name: str, gaps: list[int]) -> Any:
        inputs = {"input_gaps": {"block_rows": 4, "blocks": gaps}} if gaps else {}
        return SimpleNamespace(fingerprint=name, gaps=gaps, gap_inputs=lambda: inputs)

    nothing = np.zeros(0, np.int64)
    samples = BankSamples(nothing, nothing, np.zeros(0))

    def inputs(*elements: Any) -> dict[str, Any]:
        return BankDraw([*elements], samples, nothing, nothing, nothing).inputs()

    assert inputs(features("a", [])) == {"features": "a"}
    gap = {"block_rows": 4, "blocks": [1]}
    assert inputs(features("a", [1])) == {"features": "a", "input_gaps": gap}
    assert inputs(features("a", []), features("b", [1])) == {
        "features": ["a", "b"],
        "input_gaps": {"b": gap},
    }


def test_features_under_another_precision_are_not_taken(
    local_ray: None, photos: Path, tmp_path: Path
) -> None:
    with Session(ClusterOptions(store=str(tmp_path), workers=1)) as session:
        index = index_dataset(session, f"imagefolder:{photos}")
        passes: list[int] = []
        for dtype in ("fp32", "bf16", "fp32"):
            network = open_network(ModelOptions(model=MODEL, classes="dataset", dtype=dtype))
            network = network_for(network, index, "dataset")
            entries = len(session.ledger)
            if not passes:
                extract_index(session, network, index, 16)
            draw_bank(session, network, index, BankOptions(per_class=3), 16)
            passes.append(sum(step.forward_passes for step in session.ledger[entries:]))
    assert passes[0] == 120, "the whole split, and nothing after it"
    assert 0 < passes[1] < 120
    assert passes[2] == 0
