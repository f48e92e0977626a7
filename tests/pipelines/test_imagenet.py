"""ImageNet's archives through the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from regroup_store.format.store import open_store
from regroup_store.kinds.indexes import SampleIndex
from tests.pipelines.conftest import Run
from tests.store import imagenet_layouts as layouts


def test_archives_and_folders_have_one_index(run: Run, local_ray: None, tmp_path: Path) -> None:
    """Whoever unpacks the archive later does not begin again: the index is told the new place."""
    store, found = tmp_path / "store", []
    for make in (layouts.train_in_archive, layouts.train_in_folders):
        make(tmp_path / make.__name__ / "imagenet")
        dataset = f"imagenet:train:{tmp_path / make.__name__ / 'imagenet'}"
        outcome = run("index-dataset", "--store", store, "--dataset", dataset, "--json")
        assert outcome.status == 0, outcome.err
        assert (outcome.json["samples"], len(outcome.json["classes"])) == (9, 1000)
        found.append(outcome.json["index"])
        assert SampleIndex.open(open_store(str(store)), found[-1]).source_spec == dataset
    assert found[0] == found[1]
    assert found[0].startswith("imagenet-train-")


@pytest.mark.parametrize("layout", ["imagenet:val:{}", "imagenet:{}", "webdataset:{}/*.tar"])
def test_what_is_not_there_is_one_sentence(layout: str, run: Run, tmp_path: Path) -> None:
    layouts.train_in_archive(tmp_path / "data")
    dataset = layout.format(tmp_path / "data")
    outcome = run("index-dataset", "--store", tmp_path / "store", "--dataset", dataset)
    assert outcome.status == 2
    assert "Traceback" not in outcome.err
    assert dataset.partition(":")[0] in outcome.err.strip().splitlines()[-1]
    assert not (tmp_path / "store").exists(), "nothing was written"
