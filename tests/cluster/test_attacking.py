"""The attack worker files every sample's adversarial under its own row, batch by batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from cluster.attacking import AttackJob
from regroup.attacks import predictions, run_attack
from regroup.attacks.pgd import PGD
from regroup.models import ModelSpec, load_classifier
from regroup.pixels import decode
from store.adversarials import IMAGES, adversarials_spec
from store.element import BlockElement
from store.fingerprint import encoded_digest
from store.indexes import COLUMNS, SampleIndex
from store.stores import open_store

MODEL = ModelSpec("digits-cnn", weights="random")
ATTACK = PGD(epsilon=64 / 255, steps=3, step_ratio=0.5, protocol="budget")
ROWS, CORRUPT, WRONG = 7, 1, 4


def test_records_belong_to_their_rows(tmp_path: Path) -> None:
    """As one attack on all good rows at once: examples depend on no batch."""
    classifier, random = load_classifier(MODEL), np.random.default_rng(0)
    folder = tmp_path / "photos" / "noise"
    folder.mkdir(parents=True)
    for row in range(ROWS):
        grey = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(grey).save(folder / f"{row}.png")
    encoded = [(folder / f"{row}.png").read_bytes() for row in range(ROWS)]
    pixels = np.stack([decode(data, classifier.preprocessing) for data in encoded])
    labels = predictions(classifier, torch.from_numpy(pixels)).numpy()
    labels[WRONG] = (labels[WRONG] + 1) % 10
    (folder / f"{CORRUPT}.png").write_bytes(b"not an image")
    columns = {
        "sample_id": [f"s{row}" for row in range(ROWS)],
        "label": labels,
        "locator": [f"noise/{row}.png" for row in range(ROWS)],
        "digest": [encoded_digest(data) for data in encoded],
    }
    store = open_store(str(tmp_path / "store"), create=True)
    index = SampleIndex.write(
        store, "noise", [pa.table(columns, schema=COLUMNS)], [str(y) for y in range(10)],
        f"imagefolder:{folder.parent}",
    )  # fmt: skip
    spec = adversarials_spec(
        "noise-pgd", model={}, attack=ATTACK.describe(), index_fingerprint=index.fingerprint,
        image_shape=(3, 16, 16), rows=ROWS, block_rows=ROWS,
    )  # fmt: skip
    element = BlockElement.create(store, spec, {})
    job = AttackJob(store.uri, element.ref, index.ref, MODEL, ATTACK, batch=3, device="cpu")
    report = job().process(0)
    assert (report.samples, report.failed) == (ROWS, 2)

    good = [row for row in range(ROWS) if row not in (CORRUPT, WRONG)]
    ids = [f"s{row}" for row in good]
    expected = run_attack(ATTACK, classifier, pixels[good], labels[good], ids)
    images, table = element.read_array(IMAGES, 0), element.samples().to_pydict()
    np.testing.assert_array_equal(images[good], expected.images)
    assert np.isnan(images[[CORRUPT, WRONG]]).all()
    for field in ("success", "adversarial_class", "epsilon", "l2", "linf", "mse", "queries"):
        found = np.array(table[field])
        np.testing.assert_allclose(found[good], getattr(expected, field), rtol=1e-6)
    assert table["label"] == labels.tolist()
    assert [row for row in range(ROWS) if table["status"][row] == "failed"] == [CORRUPT, WRONG]
    assert table["error"][WRONG] == "misclassified when it was attacked"
    assert [table["success"][row] for row in (CORRUPT, WRONG)] == [False, False]
    assert [table["adversarial_class"][row] for row in (CORRUPT, WRONG)] == [-1, -1]
    assert len(set(expected.l2.tolist())) == len(good), "no two rows are alike"
