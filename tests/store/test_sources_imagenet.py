"""ImageNet: the same samples whatever the layout, and cheap to open in any worker."""

from __future__ import annotations

import os
import pickle
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest

from regroup_store.errors import StoreUsageError
from regroup_store.format.fingerprint import encoded_digest
from regroup_store.format.store import open_store
from regroup_store.kinds.indexes import COLUMNS, SampleIndex
from regroup_store.sources import Source, open_source
from regroup_store.sources.imagenet_labels import wnids
from tests.store import imagenet_layouts as layouts
from tests.store.imagenet_layouts import CLASSES, IMAGES, LAYOUTS, TRAIN_TAR, VAL_TAR, Make

EVERY = [(split, make) for split, makers in LAYOUTS.items() for make in makers]
every_layout = pytest.mark.parametrize(
    ("split", "make"), [pytest.param(*case, id=case[1].__name__) for case in EVERY]
)


def read_all(source: Source) -> list[bytes | OSError]:
    return source.read([row.locator for row in source.rows()])


def expected(split: str) -> list[tuple[str, int, bytes]]:
    """Sample id, label and bytes, by class index and then by name."""
    return [
        (f"{wnid}/{name}", index, IMAGES[split][wnid][name])
        for wnid, index in sorted(CLASSES.items(), key=lambda item: item[1])
        for name in sorted(IMAGES[split][wnid])
    ]


def test_the_classes_are_the_thousand_in_the_order_of_torchvisions_networks() -> None:
    names = wnids()
    assert len(names) == len(set(names)) == 1000
    assert all(re.fullmatch(r"n[0-9]{8}", name) for name in names)
    # tench, hen, golden retriever, parachute, toilet tissue: their places in every network.
    known = {0: "n01440764", 8: "n01514859", 207: "n02099601", 701: "n03888257", 999: "n15075141"}
    assert {index: names[index] for index in known} == known


@every_layout
def test_every_layout_gives_the_same_samples(split: str, make: Make, tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(f"imagenet:{split}:{tmp_path}")
    rows = list(source.rows())
    found = [(row.sample_id, row.label) for row in rows]
    assert found == [(sample_id, label) for sample_id, label, _ in expected(split)]
    assert read_all(source) == [data for *_, data in expected(split)]
    shuffled = [rows[-1].locator, rows[0].locator, rows[-1].locator]
    last, first = expected(split)[-1][2], expected(split)[0][2]
    assert source.read(shuffled) == [last, first, last]
    assert source.class_names == wnids()


def index_of(source: Source, folder: Path) -> str:
    """Fingerprint of the index that is made of `source`."""
    rows = list(source.rows())
    data = source.read([row.locator for row in rows])
    columns: dict[str, list[Any]] = {
        "sample_id": [row.sample_id for row in rows],
        "label": [row.label for row in rows],
        "locator": [row.locator for row in rows],
        "digest": [encoded_digest(item) for item in data if isinstance(item, bytes)],
    }
    store = open_store(str(folder), create=True)
    table = pa.table(columns, schema=COLUMNS)
    return SampleIndex.write(store, "x", [table], source.class_names, source.spec).fingerprint


@pytest.mark.parametrize("split", LAYOUTS)
def test_every_layout_gives_the_same_index(split: str, tmp_path: Path) -> None:
    found = set()
    for make in LAYOUTS[split]:
        make(tmp_path / make.__name__)
        source = open_source(f"imagenet:{split}:{tmp_path / make.__name__}")
        found.add(index_of(source, tmp_path / f"{make.__name__}-store"))
    assert len(found) == 1


@every_layout
def test_stamps_change_with_the_file(split: str, make: Make, tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(f"imagenet:{split}:{tmp_path}")
    before = {row.sample_id: row.stamp for row in source.rows()}
    assert {row.sample_id: row.stamp for row in source.rows()} == before
    names = {Path(sample_id).name for sample_id in before} | {TRAIN_TAR, VAL_TAR}
    for number, path in enumerate(path for path in tmp_path.rglob("*") if path.name in names):
        os.utime(path, ns=(number, number))
    after = {row.sample_id: row.stamp for row in source.rows()}
    assert all(after[sample_id] != before[sample_id] for sample_id in before)


@every_layout
def test_it_travels_to_workers_and_reads_from_several_threads(
    split: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    source = open_source(f"imagenet:{split}:{tmp_path.name}/")
    assert source.spec == f"imagenet:{split}:{tmp_path}"
    wanted = [
        (row.locator, data) for row, data in zip(source.rows(), read_all(source), strict=True)
    ]
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301 - what Ray does
    monkeypatch.chdir("/")
    for worker in (copy, open_source(source.spec)):
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(worker.read, [[locator] for locator, _ in wanted * 9]))
        assert found == [[data] for _, data in wanted * 9]


@every_layout
def test_it_lies_elsewhere_than_on_this_machine(split: str, make: Make, tmp_path: Path) -> None:
    make(tmp_path)
    memory, place = fsspec.filesystem("memory"), f"/{tmp_path.name}-{make.__name__}"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            memory.pipe_file(f"{place}/{path.relative_to(tmp_path)}", path.read_bytes())
    try:
        source = open_source(f"imagenet:{split}:memory:/{place}")
        assert open_source(source.spec).read([next(source.rows()).locator]) == [
            expected(split)[0][2]
        ]
        assert [row.sample_id for row in source.rows()] == [row[0] for row in expected(split)]
        assert read_all(source) == [data for *_, data in expected(split)]
    finally:
        memory.rm(place, recursive=True)


def test_opening_and_reading_scan_no_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.train_in_archive(tmp_path)
    row = list(open_source(f"imagenet:train:{tmp_path}").rows())[-1]
    monkeypatch.setattr("regroup_store.sources.tar_entries.tarfile.open", None)
    assert open_source(f"imagenet:train:{tmp_path}").read([row.locator]) == [
        expected("train")[-1][2]
    ]


def test_a_folder_goes_before_the_archive_that_it_was_unpacked_from(tmp_path: Path) -> None:
    layouts.train_in_archive(tmp_path)
    layouts.train_in_folders(tmp_path)
    locators = [row.locator for row in open_source(f"imagenet:train:{tmp_path}").rows()]
    assert locators == [sample_id for sample_id, *_ in expected("train")]


def forged(archive: str, size: int) -> list[str]:
    return [
        f"{archive}#0+{size + 1}", f"{archive}#{size}+1", f"{archive}#-1+5", f"{archive}#0",
        f"../{archive}#0+5", "/etc/passwd#0+5", "other.tar#0+5", archive, "", "n01440764/x.JPEG",
        f"{archive}#{10**19}+1", f"{archive}#٣+1",
    ]  # fmt: skip


def test_a_locator_of_another_archive_or_outside_of_it_is_refused(tmp_path: Path) -> None:
    layouts.train_in_archive(tmp_path)
    source = open_source(f"imagenet:train:{tmp_path}")
    size = (tmp_path / TRAIN_TAR).stat().st_size
    assert source.read([f"{TRAIN_TAR}#{size - 1}+1", f"{TRAIN_TAR}#5+0"]) == [b"\0", b""]
    for locator in forged(TRAIN_TAR, size):
        with pytest.raises(StoreUsageError, match="has no image"):
            source.read([locator])


@pytest.mark.parametrize("locator", ["../LOC_val_solution.csv", "/etc/passwd", "", "a\0"])
def test_a_locator_that_leaves_the_folder_is_refused(locator: str, tmp_path: Path) -> None:
    layouts.val_of_kaggle(tmp_path)
    with pytest.raises(StoreUsageError, match="not a path inside"):
        open_source(f"imagenet:val:{tmp_path}").read([locator])


def test_an_archive_that_is_gone_is_the_error_of_its_images(tmp_path: Path) -> None:
    layouts.train_in_archive(tmp_path)
    source = open_source(f"imagenet:train:{tmp_path}")
    locator = next(iter(source.rows())).locator
    (tmp_path / TRAIN_TAR).unlink()
    (found,) = source.read([locator])
    assert isinstance(found, OSError)
    assert str(found) == f"{locator} cannot be read: No such file or directory"


@pytest.mark.shared_data
def test_a_part_of_imagenet_keeps_its_class_indices(shared_data: Path) -> None:
    source = open_source(f"imagenet:val:{shared_data}/imagenette-224")
    rows = list(source.rows())
    classes = {0, 217, 482, 491, 497, 566, 569, 571, 574, 701}  # as fastai publishes imagenette
    assert Counter(row.label for row in rows) == dict.fromkeys(classes, 20)
    wnids = (shared_data / "imagenet_wnids.txt").read_text().split()
    assert source.class_names == tuple(wnids)
    assert all(wnids[row.label] == row.sample_id.partition("/")[0] for row in rows)
