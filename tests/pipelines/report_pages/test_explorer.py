"""The vote explorer's samples, ranks, winners and pictures against those of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regroup import reference
from regroup_pipelines.commands import report
from regroup_pipelines.configs.stored import ReportConfig
from regroup_pipelines.report_pages import voters
from regroup_pipelines.report_pages.evaluation import ReportedEvaluation
from regroup_pipelines.report_pages.pictures import Album, difference, encode
from regroup_pipelines.results.records import EvaluationResults
from regroup_store.format.element import BlockElement
from regroup_store.kinds.adversarials import IMAGES
from regroup_store.kinds.banks import read_bank
from regroup_store.kinds.features import accumulators_path
from regroup_store.kinds.votes import PREDICTION, TRUE_RANK
from tests.pipelines.records import attacked
from tests.pipelines.reported import POSITIVE, Reported, column, embedded, evaluation_of


@pytest.fixture
def evaluation(reported: Reported) -> ReportedEvaluation:
    return evaluation_of(reported)


@pytest.fixture
def explorer(reported: Reported) -> Any:
    return embedded(reported.page("explorer.html"), "explorer-data")


def test_the_explorer_lists_every_sample_with_the_numbers_of_the_store(
    reported: Reported, explorer: Any
) -> None:
    results = reported.results
    made_of = attacked(results)
    for told, row in zip(explorer["evaluations"], results.evaluations, strict=True):
        for attack in told["attacks"]:
            votes = BlockElement.open(reported.store, "votes", row.votes[attack["name"]])
            ref = made_of[attack["name"]].adversarials
            made = BlockElement.open(reported.store, "adversarials", ref)
            k = row.k - 1
            found = votes.samples(["sample_id", "label", "prediction", "success"]).to_pydict()
            at = {name: place for place, name in enumerate(found["sample_id"])}
            order = [at[name] for name in attack["samples"]]
            assert sorted(order) == list(range(len(at)))
            columns = attack["columns"]
            assert columns["label"] == [found["label"][i] for i in order]
            assert columns["attacked_softmax"] == [found["prediction"][i] for i in order]
            assert columns["success"] == [int(found["success"][i]) for i in order]
            assert (
                columns["attacked_regroup"]
                == column(votes, PREDICTION)[order, POSITIVE, k].tolist()
            )
            assert columns["attacked_rank"] == column(votes, TRUE_RANK)[order, POSITIVE, k].tolist()
            sizes = made.samples(["linf"])["linf"].to_numpy()
            assert columns["linf"] == pytest.approx(sizes[order], rel=1e-3)


def test_the_clean_columns_are_those_of_the_same_sample(reported: Reported, explorer: Any) -> None:
    row = reported.results.evaluations[1]
    votes = BlockElement.open(reported.store, "votes", row.votes["clean"])
    names = votes.samples(["sample_id"])["sample_id"].to_pylist()
    ranks = dict(zip(names, column(votes, TRUE_RANK)[:, POSITIVE, row.k - 1].tolist(), strict=True))
    attack = explorer["evaluations"][1]["attacks"][0]
    assert attack["samples"] != names[: len(attack["samples"])]
    assert attack["columns"]["clean_rank"] == [ranks[name] for name in attack["samples"]]


def oracle(
    reported: Reported, row: EvaluationResults, images: str, sample: str
) -> list[list[list[int]]]:
    """The rank of every class by each tap and sign, by the literal reference."""
    votes = BlockElement.open(reported.store, "votes", row.votes[images])
    features = BlockElement.open(reported.store, "features", str(votes.inputs["features"]))
    bank = read_bank(reported.store, row.bank_ref)
    place = features.samples(["sample_id"])["sample_id"].to_pylist().index(sample)
    return [
        [
            reference.ranks(
                reference.divergences(
                    column(features, accumulators_path(tap))[place, sign], mixtures[sign]
                )
            )
            for sign in (0, 1)
        ]
        for tap, mixtures in zip(bank.taps, bank.mixtures, strict=True)
    ]


def test_ranks_of_both_classes_are_the_reference_s(reported: Reported, explorer: Any) -> None:
    compared = 0
    for told, row in zip(explorer["evaluations"], reported.results.evaluations, strict=True):
        attack = told["attacks"][0]
        for i, sample in enumerate(attack["samples"][:4]):
            label, other = (attack["columns"][name][i] for name in ("label", "adversarial"))
            for when, images in (("clean", "clean"), ("attacked", attack["name"])):
                expected, found = oracle(reported, row, images, sample), attack["ranks"][when]
                assert found["true"][i] == [[s[label] for s in tap] for tap in expected]
                if other >= 0:
                    assert found["other"][i] == [[s[other] for s in tap] for tap in expected]
                    compared += 1
    assert compared


def test_winners_are_the_stored_predictions_of_every_k(reported: Reported, explorer: Any) -> None:
    row, attack = reported.results.evaluations[0], explorer["evaluations"][0]["attacks"][1]
    votes = BlockElement.open(reported.store, "votes", row.votes[attack["name"]])
    names = votes.samples(["sample_id"])["sample_id"].to_pylist()
    order = [names.index(name) for name in attack["samples"]]
    stored = column(votes, PREDICTION)[order, POSITIVE]
    assert attack["ranks"]["attacked"]["winners"] == stored.tolist()


def test_only_blocks_that_hold_a_sample_are_read(
    evaluation: ReportedEvaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = evaluation.features("strong")
    assert features.plan.blocks == 3
    read: set[int] = set()
    stored = BlockElement.read_array

    def counted(self: BlockElement, path: str, block: int) -> Any:
        read.add(block)
        return stored(self, path, block)

    monkeypatch.setattr(BlockElement, "read_array", counted)
    rows = np.array([2 * features.plan.block_rows, 0])
    both = np.array([0, 1]), np.array([1, -1])
    found = voters.read_ranks(evaluation, "strong", rows, *both)
    assert read == {0, 2}
    assert found.true.shape == (2, len(evaluation.taps), 2)
    assert found.true.min() >= 1
    assert (found.other[1] == 0).all()


def test_pictures_are_the_stored_pixels(reported: Reported, explorer: Any) -> None:
    ref = attacked(reported.results)["strong"].adversarials
    made = BlockElement.open(reported.store, "adversarials", ref)
    names = made.samples(["sample_id"])["sample_id"].to_pylist()
    shown = explorer["pictures"]["strong"]
    assert sorted(shown) == sorted(names)
    folder = reported.output / "colours" / "pictures"
    for name, told in shown.items():
        levels = np.asarray(Image.open(folder / told["files"]["attacked"]), float) / 255
        stored = column(made, IMAGES)[names.index(name)].transpose(1, 2, 0)
        assert np.abs(levels - stored).max() <= 0.5 / 255 + 1e-6
        clean = np.asarray(Image.open(folder / told["files"]["clean"]))
        original = np.asarray(Image.open(reported.data / "val" / name).convert("RGB"))
        assert (clean == original).all()
        largest = np.abs(stored - original / 255).max()
        assert told["gain"] == pytest.approx(0.5 / largest, rel=1e-4)


def test_the_difference_of_equal_images_is_grey() -> None:
    image = np.random.default_rng(0).random((3, 4, 4)).astype(np.float32)
    grey, gain = difference(image, image)
    assert (grey == 0.5).all()
    assert gain == 1


def test_large_images_are_kept_small_and_the_album_has_an_end(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((3, 224, 224)).astype(np.float32)
    data, suffix = encode(noise)
    assert suffix == "webp"
    album = Album(tmp_path / "pictures", 2 * len(data) + 10)
    kept = [album.add({"clean": noise}) for _ in range(3)]
    assert [bool(each) for each in kept] == [True, True, False]
    assert len(list((tmp_path / "pictures").iterdir())) == 2


def test_a_dataset_that_nobody_named_is_not_read(reported: Reported, tmp_path: Path) -> None:
    """The index names it, but the index came with the store."""
    report.main(ReportConfig(store=reported.store.uri, output=str(tmp_path / "r"), json=True))
    page = tmp_path / "r" / "colours" / "explorer.html"
    data = embedded(page, "explorer-data")
    refusal = f"a report reads no dataset that is not named: give --dataset {reported.dataset[0]}"
    assert data["notes"][0] == f"Clean images of val cannot be read: {refusal}"
    assert "Clean images of val cannot be read" in page.read_text().split("explorer-data")[0]
    shown = data["pictures"]["strong"]
    assert len(shown) == 9
    assert all(
        [*each["files"]] == ["attacked"] and each["problems"]["clean"] for each in shown.values()
    )


def test_one_changed_image_costs_its_picture_alone(reported: Reported, tmp_path: Path) -> None:
    name = next(
        iter(embedded(reported.page("explorer.html"), "explorer-data")["pictures"]["strong"])
    )
    path = reported.data / "val" / name
    kept = path.read_bytes()
    Image.new("RGB", (8, 8), "white").save(path)
    try:
        options = {"output": str(tmp_path / "r"), "dataset": reported.dataset, "json": True}
        report.main(ReportConfig(store=reported.store.uri, **options))  # type: ignore[arg-type]
    finally:
        path.write_bytes(kept)
    shown = embedded(tmp_path / "r" / "colours" / "explorer.html", "explorer-data")["pictures"][
        "strong"
    ]
    assert "has changed" in shown.pop(name)["problems"]["clean"]
    assert not any(each["problems"] for each in shown.values())


def test_fewer_images_and_another_seed(reported: Reported, tmp_path: Path) -> None:
    chosen: list[tuple[Any, ...]] = []
    for seed in (0, 1, 0):
        output = tmp_path / f"r{len(chosen)}"
        config = ReportConfig(
            store=reported.store.uri, output=str(output), images=4, seed=seed, json=True,
            dataset=reported.dataset,
        )  # fmt: skip
        report.main(config)
        data = embedded(output / "colours" / "explorer.html", "explorer-data")
        attack = data["evaluations"][0]["attacks"][0]
        assert len(attack["samples"]) == 9
        assert len(attack["ranks"]["clean"]["true"]) == len(data["pictures"]["strong"]) == 2
        assert set(data["pictures"]["strong"]) == set(attack["samples"][:2])
        chosen.append(tuple(attack["samples"]))
    assert chosen[0] == chosen[2] != chosen[1]
