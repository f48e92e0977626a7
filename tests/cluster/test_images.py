"""Where the pixels of a block come from: every row at its place, unreadable ones with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from cluster.images import AdversarialImages, ImageBatch, Images, IndexImages
from regroup.pixels import Preprocessing
from store.adversarials import COLUMNS, IMAGES, adversarials_spec
from store.element import BlockElement
from store.fingerprint import encoded_digest
from store.indexes import COLUMNS as INDEX_COLUMNS
from store.indexes import SampleIndex
from store.stores import open_store

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
    batches: list[ImageBatch] = list(images.batches(block, 2))
    pixels = {
        int(row): float(image[0, 0, 0])
        for batch in batches
        for row, image in zip(batch.rows, batch.pixels, strict=True)
    }
    errors = {row: error for batch in batches for row, error in batch.errors.items()}
    return pixels, errors, [len(batch.rows) + len(batch.errors) for batch in batches]


def test_rows_of_an_index_keep_their_place(tmp_path: Path) -> None:
    uri, ref = folder_index(tmp_path, corrupt=3, changed=5)
    images = IndexImages(uri, ref, 4, Preprocessing(2))
    pixels, errors, sizes = gathered(images, 0)
    assert pixels == {row: np.float32(GREY[row] / 255) for row in (0, 1, 2)}
    assert list(errors) == [3]
    assert sizes == [2, 2]
    pixels, errors, sizes = gathered(images, 1)
    assert images.rows(1).sample_ids == ["s4", "s5", "s6"]
    assert pixels == {0: np.float32(200 / 255), 2: np.float32(30 / 255)}
    assert list(errors) == [1]
    assert "changed since it was indexed" in errors[1]
    assert sizes == [2, 1]


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
        "success": ok,
        **{name: [0] * 5 for name in ("adversarial_class", "target", "steps", "queries")},
        **{name: [0.0] * 5 for name in ("epsilon", "l2", "linf", "mse")},
    }
    table = pa.table(columns, schema=COLUMNS)
    pixels = np.broadcast_to(values[:, None, None, None], (5, 3, 2, 2)).copy()
    assert element.write_block(0, {IMAGES: pixels}, table, {})
    images = AdversarialImages(store.uri, element.ref)
    assert images.rows(0).labels.tolist() == [0, 1, 2, 3, 4]
    found, errors, sizes = gathered(images, 0)
    assert found == {row: values[row] for row in (0, 2, 3)}
    assert errors == {1: "error 1", 4: "error 4"}
    assert sizes == [2, 2, 1]
