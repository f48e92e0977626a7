"""Where the pixels of a block come from: every row at its place, unreadable ones with a reason."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from regroup.images import decoding
from regroup.images.preprocessing import Preprocessing, decode_image
from regroup_cluster.errors import ClusterUsageError
from regroup_cluster.workers.images import (
    BATCHES_AHEAD,
    AdversarialImages,
    ImageBatch,
    Images,
    IndexImages,
    decode_threads,
)
from regroup_store.errors import StoreError
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import encoded_digest
from regroup_store.format.store import open_store
from regroup_store.kinds.adversarials import COLUMNS, IMAGES, LATER, adversarials_spec
from regroup_store.kinds.indexes import COLUMNS as INDEX_COLUMNS
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.sources.source import Source

GREY = (0, 50, 100, 150, 200, 250, 30)


def folder_index(root: Path, corrupt: int, changed: int) -> tuple[str, str]:
    """A store and the index of seven grey images; one is no image, one has changed since."""
    folder = root / "photos" / "grey"
    folder.mkdir(parents=True)
    for number, grey in enumerate(GREY):
        Image.new("L", (2, 2), grey).save(folder / f"{number}.png")
    (folder / f"{corrupt}.png").write_bytes(b"not an image")
    columns = {
        "sample_id": [f"s{number}" for number in range(len(GREY))],
        "label": [0] * len(GREY),
        "locator": [f"grey/{number}.png" for number in range(len(GREY))],
        "digest": [encoded_digest((folder / f"{n}.png").read_bytes()) for n in range(len(GREY))],
    }
    Image.new("L", (2, 2), 1).save(folder / f"{changed}.png")
    store = open_store(str(root / "store"), create=True)
    rows = pa.table(columns, schema=INDEX_COLUMNS)
    index = SampleIndex.write(store, "grey", [rows], ["grey"], f"imagefolder:{folder.parent}")
    return store.uri, index.ref


def gathered(images: Images, block: int) -> tuple[dict[int, float], dict[int, str], list[int]]:
    """First pixel and error by position within the block, and how many rows each batch has."""
    batches: list[ImageBatch] = list(images.block(block).batches(2))
    pixels = {
        int(row): float(image[0, 0, 0])
        for batch in batches
        for row, image in zip(batch.rows, batch.pixels, strict=True)
    }
    errors = {row: error for batch in batches for row, error in batch.errors.items()}
    return pixels, errors, [len(batch.rows) + len(batch.errors) for batch in batches]


def test_rows_of_an_index_keep_their_place(tmp_path: Path) -> None:
    uri, ref = folder_index(tmp_path, corrupt=3, changed=5)
    images = IndexImages(uri, ref, 4, Preprocessing(2), "cpu")
    pixels, errors, sizes = gathered(images, 0)
    assert pixels == {row: np.float32(GREY[row] / 255) for row in (0, 1, 2)}
    assert list(errors) == [3]
    assert sizes == [2, 2]
    pixels, errors, sizes = gathered(images, 1)
    assert images.block(1).rows.sample_ids == ["s4", "s5", "s6"]
    assert pixels == {0: np.float32(200 / 255), 2: np.float32(30 / 255)}
    assert list(errors) == [1]
    assert "changed since it was indexed" in errors[1]
    assert sizes == [2, 1]


def test_the_rows_of_a_block_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, ref = folder_index(tmp_path, corrupt=3, changed=5)
    images = IndexImages(uri, ref, 4, Preprocessing(2), "cpu")
    read = Mock(side_effect=images._index.rows)
    monkeypatch.setattr(images._index, "rows", read)
    block = images.block(0)
    assert len(block.rows.sample_ids) == sum(len(b.rows) + len(b.errors) for b in block.batches(2))
    assert read.call_count == 1


INTEGERS = ("adversarial_class", "target", "steps", "queries", "backward_passes", *LATER)


def test_failed_adversarials_are_error_rows(tmp_path: Path) -> None:
    """Their stored pixels are NaN: no network may see them."""
    store = open_store(str(tmp_path / "store"), create=True)
    spec = adversarials_spec(
        "grey-pgd", model={}, attack={}, index_fingerprint="a" * 64,
        image_shape=(3, 2, 2), rows=5, block_rows=5,
    )  # fmt: skip
    element = BlockElement.create(store, spec, {})
    values = np.linspace(0, 1, 5, dtype=np.float32)
    ok = [True, False, True, True, False]
    columns = {
        "sample_id": [f"s{row}" for row in range(5)],
        "status": ["ok" if good else "failed" for good in ok],
        "error": [None if good else f"error {row}" for row, good in enumerate(ok)],
        "label": list(range(5)),
        **dict.fromkeys(("success", "success_8bit", "claimed"), ok),
        **{name: [0] * 5 for name in INTEGERS},
        **{name: [0.0] * 5 for name in ("epsilon", "l2", "linf", "mse")},
    }
    table = pa.table(columns, schema=COLUMNS)
    pixels = np.broadcast_to(values[:, None, None, None], (5, 3, 2, 2)).copy()
    assert element.write_block(0, {IMAGES: pixels}, table, {})
    images = AdversarialImages(store.uri, element.ref, {})
    assert images.block(0).rows.labels.tolist() == [0, 1, 2, 3, 4]
    found, errors, sizes = gathered(images, 0)
    assert found == {row: values[row] for row in (0, 2, 3)}
    assert errors == {1: "error 1", 4: "error 4"}
    assert sizes == [2, 2, 1]


# What becomes of the photos of `mixed_index`, in turn: most are good.
FATES = ("good", "text", "good", "good", "changed", "cut", "good", "gone", "good", "empty", "good")
REASONS = {"text": "known format", "changed": "since it was indexed", "cut": "truncated"} | {
    "gone": "cannot be read",
    "empty": "no bytes",
}
PHOTOS = 22


@pytest.fixture(scope="module")
def mixed_index(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, list[bytes]]:
    """A store, an index of noisy photos of which many are spoilt, and the photos as they were."""
    root = tmp_path_factory.mktemp("mixed")
    folder = root / "photos" / "noise"
    folder.mkdir(parents=True)
    photos, random = [], np.random.default_rng(0)
    for number in range(PHOTOS):
        path = folder / f"{number}.jpg"
        values = random.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        Image.fromarray(values).save(path)
        photos.append(path.read_bytes())
        spoil_before(FATES[number % len(FATES)], path)
    columns = {
        "sample_id": [str(number) for number in range(PHOTOS)],
        "label": [0] * PHOTOS,
        "locator": [f"noise/{number}.jpg" for number in range(PHOTOS)],
        "digest": [encoded_digest((folder / f"{n}.jpg").read_bytes()) for n in range(PHOTOS)],
    }
    for number in range(PHOTOS):
        spoil_after(FATES[number % len(FATES)], folder / f"{number}.jpg")
    store = open_store(str(root / "store"), create=True)
    rows = pa.table(columns, schema=INDEX_COLUMNS)
    index = SampleIndex.write(store, "noise", [rows], ["noise"], f"imagefolder:{folder.parent}")
    return store.uri, index.ref, photos


def spoil_before(fate: str, path: Path) -> None:
    """Before it is indexed."""
    data = path.read_bytes()
    kept = {"text": b"<html>", "cut": data[: len(data) // 2], "empty": b""}
    path.write_bytes(kept.get(fate, data))


def spoil_after(fate: str, path: Path) -> None:
    if fate == "changed":
        path.write_bytes(b"another")
    elif fate == "gone":
        path.unlink()


class WatchedSource:
    """A source that notes what it is asked to read."""

    def __init__(self, source: Source) -> None:
        self.asked: list[int] = []
        self._read = source.read

    def read(self, locators: Sequence[str]) -> list[bytes | OSError]:
        self.asked.append(len(locators))
        return self._read(locators)


def watched(images: IndexImages) -> WatchedSource:
    source = WatchedSource(images._source)
    images._source = source  # type: ignore[assignment]
    return source


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


SIXTEEN = Preprocessing(16, resize=18)


@pytest.mark.parametrize(
    ("workers", "batch"), [*itertools.product((0, 1, 2, 5), (1, 3, 8)), ("auto", 64)]
)
def test_no_number_of_decode_workers_changes_a_bit_or_a_row(
    mixed_index: tuple[str, str, list[bytes]], workers: int, batch: int
) -> None:
    uri, ref, photos = mixed_index
    block_rows = 13  # two blocks, the second shorter
    images = IndexImages(uri, ref, block_rows, SIXTEEN, "cpu", workers)
    for block in range(2):
        first = block * block_rows
        batches = list(images.block(block).batches(batch))
        rows = min(block_rows, PHOTOS - first)
        sizes = [len(b.rows) + len(b.errors) for b in batches]
        assert sizes == [min(batch, rows - start) for start in range(0, rows, batch)]
        fates = [FATES[(first + row) % len(FATES)] for row in range(rows)]
        good = [row for row in range(rows) if fates[row] == "good"]
        assert [int(row) for b in batches for row in b.rows] == good
        found = torch.cat([b.pixels for b in batches]).numpy()
        expected = np.stack([decode_image(photos[first + row], SIXTEEN) for row in good])
        np.testing.assert_array_equal(found, expected, strict=True)
        errors = [(row, reason) for b in batches for row, reason in b.errors.items()]
        assert [row for row, _ in errors] == [row for row in range(rows) if row not in good]
        for row, reason in errors:
            assert REASONS[fates[row]] in reason.lower()


def test_reading_runs_ahead_in_batches_but_not_far(
    mixed_index: tuple[str, str, list[bytes]],
) -> None:
    images = IndexImages(*mixed_index[:2], PHOTOS, SIXTEEN, "cpu", 1)
    source = watched(images)
    batches = images.block(0).batches(4)
    for taken in range(1, 5):
        next(batches)
        ahead = min(taken + BATCHES_AHEAD, 6)
        wait_until(lambda ahead=ahead: len(source.asked) >= ahead)  # type: ignore[misc]
        time.sleep(0.02)
        assert source.asked == [4, 4, 4, 4, 4, 2][:ahead]


def test_without_decode_workers_nothing_is_ahead(
    mixed_index: tuple[str, str, list[bytes]],
) -> None:
    images = IndexImages(*mixed_index[:2], PHOTOS, SIXTEEN, "cpu", 0)
    source, threads = watched(images), threading.active_count()
    batches = images.block(0).batches(4)
    next(batches)
    assert (source.asked, threading.active_count()) == ([4], threads)


def test_decode_workers_decode_at_once(
    mixed_index: tuple[str, str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    three = threading.Barrier(3, timeout=30)

    def together(data: bytes, preprocessing: Preprocessing, *rest: object) -> object:
        three.wait()  # breaks where fewer than three images are decoded at a time
        return decode_image(data, preprocessing)

    monkeypatch.setattr(decoding, "decode_image", together)
    images = IndexImages(*mixed_index[:2], 3, SIXTEEN, "cpu", 3)
    assert [b.rows.tolist() for b in images.block(0).batches(3)] == [[0, 2]]


def test_a_store_that_fails_is_no_unreadable_image(
    mixed_index: tuple[str, str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: Sequence[str]) -> list[bytes | OSError]:
        raise StoreError("the server fails")

    for workers in (0, 2):
        images = IndexImages(*mixed_index[:2], PHOTOS, SIXTEEN, "cpu", workers)
        monkeypatch.setattr(images._source, "read", read)
        with pytest.raises(StoreError, match="the server fails"):
            list(images.block(0).batches(4))


def test_threads_end_when_the_network_fails(mixed_index: tuple[str, str, list[bytes]]) -> None:
    before = threading.active_count()
    images = IndexImages(*mixed_index[:2], PHOTOS, SIXTEEN, "cpu", 2)
    batches = iter(images.block(0).batches(4))
    next(batches)
    assert threading.active_count() > before
    del batches
    wait_until(lambda: threading.active_count() == before)


def test_automatic_number_of_decode_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for threads, beside_gpu in ((1, 1), (2, 1), (8, 7)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert decode_threads("auto", "cpu") == 1
        assert decode_threads("auto", "cuda") == beside_gpu
    assert decode_threads(3, "cpu") == 3
    with pytest.raises(ClusterUsageError, match="-1 decode workers"):
        decode_threads(-1, "cpu")
