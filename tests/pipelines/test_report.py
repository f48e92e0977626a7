"""The report's numbers against those of the store, read and counted here."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines import report
from pipelines.report import ReportConfig
from pipelines.report_pages import cost, failures, voters
from pipelines.report_pages.curves import budget_points, minimal_curve
from pipelines.report_pages.evaluation import Evaluation, Study
from pipelines.report_pages.outcomes import Outcomes
from pipelines.report_pages.pictures import Album, difference, encode
from regroup import reference
from regroup.intervals import wilson
from store.adversarials import IMAGES
from store.banks import read_bank
from store.element import BlockElement
from store.features import accumulators_path
from store.votes import PREDICTION, SIGN_CHOICES, TRUE_RANK
from tests.pipelines.reported import IMAGE, Reported

# The sign choice that the study votes with.
POSITIVE = SIGN_CHOICES.index("positive")


def embedded(page: Path, name: str) -> Any:
    """The JSON that a page's script reads."""
    found = re.search(
        rf'<script type="application/json" id="{name}">(.*?)</script>', page.read_text(), re.S
    )
    assert found
    data = json.loads(found[1])
    for evaluation in data["evaluations"] if name == "explorer-data" else ():
        for attack in evaluation["attacks"]:
            attack["samples"] = [data["ids"][place] for place in attack["samples"]]
    return data


def test_no_two_things_on_a_page_have_one_name(reported: Reported) -> None:
    for page in reported.output.rglob("*.html"):
        named = Counter(re.findall(r' id="([^"]*)"', page.read_text()))
        assert (page.name, [name for name, count in named.items() if count > 1]) == (page.name, [])


def column(element: BlockElement, path: str) -> np.ndarray[Any, Any]:
    return np.concatenate([element.read_array(path, b) for b in range(element.plan.blocks)])


def download(page: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((page.parent / "data" / name).read_text())))


def study_of(reported: Reported) -> Study:
    return Study(reported.store, reported.results)


@pytest.fixture
def evaluation(reported: Reported) -> Evaluation:
    return study_of(reported).evaluations[0]


@pytest.fixture
def explorer(reported: Reported) -> Any:
    return embedded(reported.page("explorer.html"), "explorer-data")


def test_what_the_command_says(reported: Reported) -> None:
    assert reported.summary["studies"] == ["colours"]
    assert reported.summary["forward_passes"] == 0
    assert reported.summary["pages"] == 7
    names = {path.name for path in (reported.output / "static").iterdir()}
    assert names == {"report.css", "report.js", "explorer.js", "plotly.min.js"}
    assert all("http" not in line for line in links(reported.page("tables.html")))


def links(page: Path) -> list[str]:
    return re.findall(r'(?:href|src)="([^"]*)"', page.read_text())


def test_every_link_of_every_page_leads_to_a_file(reported: Reported) -> None:
    for page in reported.output.rglob("*.html"):
        local = [each for each in links(page) if not each.startswith(("data:", "#"))]
        missing = [each for each in local if not (page.parent / each.split("#")[0]).is_file()]
        assert (page.name, missing) == (page.name, [])


def test_the_explorer_lists_every_sample_with_the_numbers_of_the_store(
    reported: Reported, explorer: Any
) -> None:
    results = reported.results
    for told, row in zip(explorer["evaluations"], results["evaluations"], strict=True):
        for attack in told["attacks"]:
            votes = BlockElement.open(reported.store, "votes", row["votes"][attack["name"]])
            made = BlockElement.open(
                reported.store,
                "adversarials",
                next(i["adversarials"] for i in results["images"] if i["images"] == attack["name"]),
            )
            k = row["k"] - 1
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
    row = reported.results["evaluations"][1]
    votes = BlockElement.open(reported.store, "votes", row["votes"]["clean"])
    names = votes.samples(["sample_id"])["sample_id"].to_pylist()
    ranks = dict(
        zip(names, column(votes, TRUE_RANK)[:, POSITIVE, row["k"] - 1].tolist(), strict=True)
    )
    attack = explorer["evaluations"][1]["attacks"][0]
    assert attack["samples"] != names[: len(attack["samples"])]
    assert attack["columns"]["clean_rank"] == [ranks[name] for name in attack["samples"]]


def oracle(reported: Reported, row: Any, images: str, sample: str) -> list[list[list[int]]]:
    """The rank of every class by each tap and sign, by the literal reference."""
    votes = BlockElement.open(reported.store, "votes", row["votes"][images])
    features = BlockElement.open(reported.store, "features", str(votes.inputs["features"]))
    bank = read_bank(reported.store, row["bank_ref"])
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
    for told, row in zip(explorer["evaluations"], reported.results["evaluations"], strict=True):
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
    row, attack = reported.results["evaluations"][0], explorer["evaluations"][0]["attacks"][1]
    votes = BlockElement.open(reported.store, "votes", row["votes"][attack["name"]])
    names = votes.samples(["sample_id"])["sample_id"].to_pylist()
    order = [names.index(name) for name in attack["samples"]]
    stored = column(votes, PREDICTION)[order, POSITIVE]
    assert attack["ranks"]["attacked"]["winners"] == stored.tolist()


def test_only_blocks_that_hold_a_sample_are_read(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
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
    attack = next(i for i in reported.results["images"] if i["images"] == "strong")
    made = BlockElement.open(reported.store, "adversarials", attack["adversarials"])
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


def test_classes_samples_and_pairs_that_lose(reported: Reported, evaluation: Evaluation) -> None:
    attack = study_of(reported).attacks[0]
    outcomes, names = evaluation.outcomes(attack), evaluation.class_names
    rows = [
        {name: values[i].item() for name, values in outcomes.columns.items()}
        for i in range(len(outcomes))
    ]
    lost = Counter(
        row["label"]
        for row in rows
        if row["clean_regroup"] == row["label"] != row["attacked_regroup"]
    )
    assert sum(lost.values())
    found = failures.classes(outcomes, names)
    assert {row["class"]: row["lost"] for row in found} == {
        names[label]: lost[label] for label in {row["label"] for row in rows}
    }
    fooled = [row for row in rows if row["success"]]
    taken = Counter((row["label"], row["adversarial"]) for row in fooled)
    assert {
        (r["class"], r["adversarial_class"]): r["samples"] for r in failures.pairs(outcomes, names)
    } == {(names[a], names[b]): n for (a, b), n in taken.items()}
    answers = failures.answers(outcomes)
    assert sum(cell["correct"] for cell in answers.values()) == len(fooled)
    same = sum(row["attacked_regroup"] == row["adversarial"] for row in fooled)
    assert answers["adversarial"]["correct"] == same
    assert answers["true"]["interval95"] == pytest.approx(
        wilson(answers["true"]["correct"], len(fooled))
    )
    falls = [row["attacked_rank"] - row["clean_rank"] for row in rows]
    told = [row["attacked_rank"] - row["clean_rank"] for row in failures.samples(outcomes, names)]
    assert told == sorted((fall for fall in falls if fall > 0), reverse=True)


def test_curves_begin_clean_and_end_where_the_tables_are(
    reported: Reported, evaluation: Evaluation
) -> None:
    strong, least = study_of(reported).attacks
    accuracy = {row["images"]: row for row in reported.results["evaluations"][0]["accuracy"]}
    for curve, name in (
        (budget_points(evaluation, [strong]), "strong"),
        (minimal_curve(evaluation, least), "least"),
    ):
        outcomes = evaluation.outcomes(strong if name == "strong" else least)
        first, last = curve["rows"][0], curve["rows"][-1]
        assert first["epsilon"] == 0
        assert first["softmax"]["correct"] == len(outcomes)
        assert first["regroup"]["correct"] == int(outcomes.regroup_right_clean.sum())
        assert last["softmax"]["correct"] == accuracy[name]["softmax_top1_all"]["correct"]
        assert last["regroup"]["correct"] == accuracy[name]["regroup_top1_all"]["correct"]
    assert budget_points(evaluation, [strong])["rows"][1]["epsilon"] == pytest.approx(200 / 255)


def test_downloads_hold_the_study_s_numbers(reported: Reported) -> None:
    row = reported.results["evaluations"][0]
    name = f"{row['taps']}-{row['bank']}-accuracy"
    rows = download(reported.page("tables.html"), f"{name}.csv")
    found = {(r["images"], r["measure"], r["top"], r["over"]): r for r in rows}
    for each in row["accuracy"][:3]:
        told = found[each["images"], "regroup", "1", "all"]
        assert int(told["correct"]) == each["regroup_top1_all"]["correct"]
    assert found["later", "regroup", "1", "all"]["state"] == "not run"
    as_json = json.loads((reported.page("data") / f"{name}.json").read_text())
    assert [str(r["correct"]) for r in as_json] == [r["correct"] for r in rows]


def test_cost_adds_up_to_what_the_study_counted(reported: Reported) -> None:
    study = study_of(reported)
    costs = cost.spent(study, cost.read_runs(reported.store))
    assert sum(each.forward_passes for each in costs) == reported.results["forward_passes"] > 0
    saved = cost.saving(study, costs)
    evaluations = reported.results["evaluations"]
    rows = [
        BlockElement.open(reported.store, "votes", ref).plan.rows
        for each in evaluations
        for ref in each["votes"].values()
    ]
    assert saved.samples == sum(rows)
    assert saved.scored_passes == 0
    assert saved.questions == 3 * len(evaluations[0]["tap_accuracy"])
    attacks = [step for step in reported.results["steps"] if step["step"].startswith("attack")]
    assert saved.attack_passes == sum(step["forward_passes"] for step in attacks)


def test_provenance_names_every_element_and_command(reported: Reported) -> None:
    page = reported.page("index.html").read_text()
    results = reported.results
    for evaluation in results["evaluations"]:
        for ref in (evaluation["bank_ref"], *evaluation["votes"].values()):
            assert ref[-16:] in page
    elements = download(reported.page("index.html"), "elements.csv")
    assert all(len(row["fingerprint"]) == 64 for row in elements)
    assert {row["kind"] for row in elements} == {
        "indexes", "adversarials", "banks", "features", "votes",
    }  # fmt: skip
    runs = download(reported.page("index.html"), "runs.csv")
    assert runs[0]["command"].startswith("regroup run ")
    assert "--store" in runs[0]["command"]
    assert "regroup rescore --store" in page
    assert "regroup curve --store" in page


def test_names_from_the_store_are_text_on_every_page(reported: Reported) -> None:
    for page in reported.output.rglob("*.html"):
        text = page.read_text()
        assert IMAGE not in text
        assert "<b onmouseover" not in text
        assert "window.owned = 1</script>" not in text
    assert "&lt;img src=x" in reported.page("failures.html").read_text()


def test_images_that_are_gone_are_told_in_the_page(reported: Reported, tmp_path: Path) -> None:
    val = reported.data / "val"
    val.rename(reported.data / "away")
    try:
        report.main(ReportConfig(store=reported.store.uri, output=str(tmp_path / "r"), json=True))
    finally:
        (reported.data / "away").rename(val)
    page = tmp_path / "r" / "colours" / "explorer.html"
    data = embedded(page, "explorer-data")
    assert "Clean images of val cannot be read" in data["notes"][0]
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
        report.main(ReportConfig(store=reported.store.uri, output=str(tmp_path / "r"), json=True))
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
            store=reported.store.uri, output=str(output), images=4, seed=seed, json=True
        )
        report.main(config)
        data = embedded(output / "colours" / "explorer.html", "explorer-data")
        attack = data["evaluations"][0]["attacks"][0]
        assert len(attack["samples"]) == 9
        assert len(attack["ranks"]["clean"]["true"]) == len(data["pictures"]["strong"]) == 2
        assert set(data["pictures"]["strong"]) == set(attack["samples"][:2])
        chosen.append(tuple(attack["samples"]))
    assert chosen[0] == chosen[2] != chosen[1]


def test_ten_thousand_samples_stay_below_15_mb(
    reported: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers of 10 000 attacked samples, 54 taps and large noisy images, all made up."""
    rng, count, taps = np.random.default_rng(0), 10_000, 54
    columns: dict[str, Any] = {name: rng.integers(0, 3, count) for name in (
        "label", "adversarial", "clean_softmax", "attacked_softmax", "clean_regroup",
        "attacked_regroup", "clean_rank", "attacked_rank", "clean_row", "attacked_row", "image_row",
    )}  # fmt: skip
    columns |= {
        "success": rng.random(count) < 0.9,
        "l2": rng.random(count),
        "linf": rng.random(count),
    }
    names = [f"n01440764/ILSVRC2012_val_{i:08d}.JPEG" for i in range(count)]
    noise = rng.random((8, 3, 224, 224)).astype(np.float32)

    def ranks(evaluation: Evaluation, images: str, rows: Any, *classes: Any) -> voters.Ranks:
        shape = (len(rows), taps, 2)
        true, other = rng.integers(1, 1000, (2, *shape))
        return voters.Ranks(true, other, rng.integers(0, 3, shape[:2]))

    monkeypatch.setattr(Evaluation, "outcomes", lambda *_: Outcomes(names, columns))
    monkeypatch.setattr("pipelines.report_pages.explorer.read_ranks", ranks)
    for kind in ("CleanImages", "AttackedImages"):
        path = f"pipelines.report_pages.pictures.{kind}.read"
        monkeypatch.setattr(path, lambda *_: noise[rng.integers(8)])
    config = ReportConfig(store=reported.store.uri, output=str(tmp_path / "r"), json=True)
    summary = report.main(config)
    data = embedded(tmp_path / "r" / "colours" / "explorer.html", "explorer-data")
    assert len(data["evaluations"][0]["attacks"][0]["samples"]) == 10_000
    assert 8_000_000 < summary["bytes"] <= 15_000_000
