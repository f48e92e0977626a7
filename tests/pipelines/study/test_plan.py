"""Plans of a study: bounds, and when a number is one. What a plan shares with a run: test_run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from regroup_pipelines.commands.run import main
from regroup_pipelines.configs.studies import RunConfig
from tests.pipelines.colour_study import STUDY
from tests.pipelines.colours import colour_folder
from tests.pipelines.conftest import Run

BOTH = ("samples", "forward_passes")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with the study, its datasets, and no store."""
    colour_folder(tmp_path / "train", images=3)
    colour_folder(tmp_path / "val", images=4)
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


def planned_with(folder: Path, *changes: str, data: str = ".") -> dict[str, tuple[Any, ...]]:
    """Samples and bounds, by step and kind of work, of a plan of the study in `folder`."""
    where = {
        "store": str(folder / "store"),
        "output": str(folder / "out"),
        "data": str(folder / data),
    }
    study = str(folder / "study.toml")
    plan = main(RunConfig(study=study, dry_run=True, json=True, set=changes, **where))["plan"]  # type: ignore[arg-type]
    kinds = [(line["what"] or "?").split()[0] for line in plan]
    return {
        f"{line['step']} {kind}": (line["samples"], line["bounds"])
        for line, kind in zip(plan, kinds, strict=True)
    }


def test_bounds_are_what_the_study_can_take_at_most(images: Path) -> None:
    planned = planned_with(
        images,
        "banks.four.per_class=1",
        "banks.four.expected_accuracy=1.0",
        "subsets.V6.correct=false",
        "subsets.V6.limit=5",
        "attacks.strong.limit=100",
    )
    assert planned["preactivation: samples of four extract"] == (3, ()), "the first round"
    assert planned["preactivation: samples of four, further rounds ?"] == (6, BOTH)
    assert planned["preactivation: bank four ?"] == (3, ("samples",))
    assert planned["attack least ?"] == (5, BOTH)
    assert planned["attack strong ?"] == (12, BOTH)
    assert planned["linear: score strong ?"] == (12, ("samples",))


def test_a_second_bank_of_the_same_images_may_find_the_firsts(images: Path) -> None:
    two = STUDY.replace("[subsets.V6]", "[banks.two]\nper_class = 2\n[subsets.V6]")
    (images / "study.toml").write_text(two)
    planned = planned_with(images)
    assert planned["preactivation: samples of four extract"][1] == ()
    assert planned["preactivation: samples of two extract"][1] == BOTH
    assert planned["linear: samples of four extract"][1] == ()


def test_moved_data_may_be_found_again(local_ray: None, images: Path, run: Run) -> None:
    """Nothing says without reading them that they are the images of the store."""
    store = ("--store", str(images / "store"))
    for split in ("train", "val"):
        made = run("index-dataset", *store, "--dataset", f"imagefolder:{images / split}")
        assert made.status == 0
    assert planned_with(images)["preactivation: clean extract"] == (12, ())
    for split in ("train", "val"):
        shutil.move(images / split, images / "else" / split)
    moved = planned_with(images, data="else")
    assert moved["preactivation: clean extract"] == (12, BOTH)
    args = ("run", images / "study.toml", *store, "--data", images / "else", "--dry-run")
    told = run(*args)
    assert "Forward passes to do: exactly 0, and at most" in told.out
    assert "at most 12" in told.out
    assert not any((images / name).exists() for name in ("out", "colours-results"))
