"""Datasets that name their classes in another order, from the bank to tables and studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regroup_pipelines.configs.options import ModelOptions
from regroup_pipelines.errors import UsageError
from regroup_pipelines.robust import load_robust_classifier
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from tests.pipelines.conftest import Run
from tests.pipelines.labelled import IMAGES, write_colours
from tests.pipelines.test_classes import done, refusal

BARE, NAMED = "tests.pipelines.labelled:Bare", "tests.pipelines.labelled:Named"
ALL = 3 * IMAGES
STUDY = """name = "named"
store = "{store}"

[model]
name = "{model}"
labels = "{labels}"

[datasets]
train = "{train}"
val = "{val}"

[banks.few]
per_class = 2
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Datasets of the same colours: their names in two orders, and others."""
    folder = tmp_path_factory.mktemp("data")
    return {
        "train": write_colours(folder / "train.parquet", "abc"),
        "val": write_colours(folder / "val.parquet", "cba"),
        "other": write_colours(folder / "other.parquet", "abc", ("x", "y", "z")),
    }


def right(outcome: Any, row: int = 0) -> int:
    """How many clean images softmax got right, in the table of `evaluate`."""
    counted: int = outcome["rows"][row]["over_all"]["softmax_top1"]["correct"]
    return counted


def features(store: Path, ref: str) -> BlockElement:
    return BlockElement.open(open_store(str(store)), "features", ref)


def test_a_network_without_names_has_those_of_its_bank(
    run: Run, local_ray: None, data: dict[str, str], tmp_path: Path
) -> None:
    store = tmp_path / "s"
    common = ("--store", store, "--model", BARE, "--json")
    first = run("extract", *common, "--dataset", data["val"])
    assert done(first)["softmax_correct"] == IMAGES, "by position, which is all there is so far"
    assert "by position, label 0 ('c') is class 0 and so on" in first.err
    assert features(store, done(first)["features"]).manifest["recorded"]["labels"] == "position"  # type: ignore[index]

    built = done(run("build-bank", *common, "--dataset", data["train"], "--per-class", "2"))
    again = run("extract", *common, "--dataset", data["val"])
    named = features(store, done(again)["features"])
    assert done(again)["softmax_correct"] == ALL
    assert "made anew" in again.err
    assert (named.inputs["labels"], named.manifest["recorded"]["labels"]) == ([2, 1, 0], "name")  # type: ignore[index]

    of_val = (*common, "--dataset", data["val"])
    attack = ("--protocol", "budget", "--epsilon", "0.01", "--steps", "1")
    made = done(run("attack", *of_val, *attack))
    assert made["attempted"] == ALL
    scored = ("--bank", built["bank"], "--k", "1")
    table = done(run("evaluate", *of_val, *scored, "--adversarials", made["adversarials"]))
    assert (right(table), right(table, 1)) == (ALL, ALL)

    told = refusal(run("rescore", "--store", store, *scored))
    assert "class 0 'c', which is class 2 of the bank" in told
    done(run("rescore", "--store", store, *scored, "--labels", "position", "--json"))

    forced = done(run("evaluate", *of_val, *scored, "--labels", "position"))
    assert right(forced) == IMAGES
    by_position = features(store, forced["steps"][-2]["ref"])
    assert by_position.inputs["label_order"] == "position"
    told = refusal(
        run("evaluate", *of_val, *scored, "--labels", "position", "--adversarials",
            made["adversarials"])
    )  # fmt: skip
    assert "number their classes differently" in told

    other = ("--dataset", data["other"])
    told = refusal(run("evaluate", *common, *scored, *other))
    assert all(word in told for word in ("'x', 'y', 'z'", "'a', 'b', 'c'", "--labels position"))
    for command in ("extract", "attack", "build-bank"):
        assert "the classes 'x', 'y', 'z'" in refusal(run(command, *common, *other))
    table = done(run("evaluate", *common, *scored, *other, "--labels", "position"))
    assert right(table) == ALL

    misnamed = ModelOptions(model="tests.pipelines.labelled:Misnamed")
    with pytest.raises(UsageError):
        load_robust_classifier(str(store), built["bank"], misnamed, k=1)


@pytest.mark.parametrize(
    ("model", "val", "labels", "line"),
    [
        (BARE, "val", "name", "labels of val: by name, all 3 found among those of the dataset"),
        (NAMED, "val", "name", "found among those of the model"),
        (NAMED, "other", "position", "labels of val: by position, as --labels says"),
    ],
)
def test_a_study_says_what_its_labels_go_by(
    run: Run, data: dict[str, str], tmp_path: Path, model: str, val: str, labels: str, line: str
) -> None:
    study = tmp_path / "study.toml"
    text = STUDY.format(
        store=tmp_path / "s", model=model, labels=labels, train=data["train"], val=data[val]
    )
    study.write_text(text)
    planned = run("run", study, "--dry-run", "--json")
    assert planned.status == 0
    assert line in planned.err


@pytest.mark.parametrize("model", [BARE, NAMED])
def test_a_study_whose_names_do_not_match_is_refused_in_its_line(
    run: Run, data: dict[str, str], tmp_path: Path, model: str
) -> None:
    study = tmp_path / "study.toml"
    text = STUDY.format(
        store=tmp_path / "s", model=model, labels="name", train=data["train"], val=data["other"]
    )
    study.write_text(text)
    told = refusal(run("run", study))
    assert "study.toml, line 10: datasets.val: " in told
    assert "'x', 'y', 'z'" in told
    assert 'model.labels = "position"' in told
    assert not (tmp_path / "s").exists()
