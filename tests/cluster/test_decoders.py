"""Whichever decoder is named, clean features and attacks see the same pixels of an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from regroup.attacks.pgd.attack import PGD
from regroup.errors import ConfigurationError
from regroup.images.decoding import Decoder, TorchvisionDecoder, open_decoder
from regroup.images.preprocessing import DecodingLimits, Preprocessing, decode_image
from regroup.models import ModelSpec, load_classifier
from regroup_cluster.dispatch.attempt import measured
from regroup_cluster.errors import ClusterUsageError
from regroup_cluster.workers.attack import AttackWork
from regroup_cluster.workers.extraction import ExtractionWork, build_extractor
from regroup_cluster.workers.images import AdversarialsSpec, ImagesSpec, IndexSpec
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import encoded_digest
from regroup_store.format.store import Store, open_store
from regroup_store.kinds.adversarials import IMAGES, adversarials_spec
from regroup_store.kinds.features import LOGITS, features_spec
from regroup_store.kinds.indexes import COLUMNS, SampleIndex

MODEL = ModelSpec("digits-cnn", weights="random", decoder="cuda")
ATTACK = PGD(epsilon=1e-6, steps=1, protocol="budget")
ROWS = 5


@pytest.fixture
def index(tmp_path: Path) -> tuple[Store, SampleIndex]:
    """A store, and the index of some noisy JPEGs, of the classes that the model gives them."""
    folder, random = tmp_path / "photos" / "noise", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for row in range(ROWS):
        values = random.integers(0, 256, (20, 30 + row, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{row}.jpg")
    encoded = [(folder / f"{row}.jpg").read_bytes() for row in range(ROWS)]
    classifier = load_classifier(MODEL)
    pixels = TorchvisionDecoder(classifier.preprocessing, "cpu")(encoded).pixels
    columns = {
        "sample_id": [str(row) for row in range(ROWS)],
        "label": classifier(pixels).argmax(1).numpy().astype(np.int32),
        "locator": [f"noise/{row}.jpg" for row in range(ROWS)],
        "digest": [encoded_digest(data) for data in encoded],
    }
    store = open_store(str(tmp_path / "store"), create=True)
    table, names = pa.table(columns, schema=COLUMNS), [str(y) for y in range(10)]
    source = f"imagefolder:{folder.parent}"
    return store, SampleIndex.write(store, "noise", [table], names, source)


def encoded_images(index: SampleIndex) -> list[bytes]:
    folder = Path(index.source_spec.removeprefix("imagefolder:"))
    return [(folder / "noise" / f"{row}.jpg").read_bytes() for row in range(ROWS)]


def attack_work(store: Store, index: SampleIndex) -> AttackWork:
    spec = adversarials_spec(
        "noise-pgd", model={}, attack=ATTACK.describe(), index_fingerprint=index.fingerprint,
        image_shape=(3, 16, 16), rows=ROWS, block_rows=ROWS,
    )  # fmt: skip
    element = BlockElement.create(store, spec, {})
    return AttackWork(store.uri, element.ref, IndexSpec(index.ref), MODEL, ATTACK, 3)


def extraction_work(store: Store, source: dict[str, str], images: ImagesSpec) -> ExtractionWork:
    classifier = load_classifier(MODEL)
    taps = build_extractor(classifier, "preactivation", "cpu").taps
    spec = features_spec(
        "noise", model=classifier.describe(), policy="preactivation", source=source,
        taps=[(tap.name, tap.channels) for tap in taps], num_classes=10, rows=ROWS,
        block_rows=ROWS,
    )  # fmt: skip
    ref = BlockElement.create(store, spec, {}).ref
    return ExtractionWork(store.uri, ref, images, MODEL, "preactivation", 3)


def decoder_without_gpu(
    preprocessing: Preprocessing, device: str, limits: DecodingLimits
) -> Decoder:
    """As `open_decoder`, with torchvision's decoder for CPUs where a GPU is named."""
    if preprocessing.decoder == "cuda":
        return TorchvisionDecoder(preprocessing, device, limits)
    return open_decoder(preprocessing, device, limits)


def test_features_and_attacks_see_the_same_pixels(
    index: tuple[Store, SampleIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regroup_cluster.workers.images.open_decoder", decoder_without_gpu)
    store, rows = index
    classifier = load_classifier(MODEL)
    pixels = TorchvisionDecoder(classifier.preprocessing, "cpu")(encoded_images(rows)).pixels
    pils = np.stack([decode_image(data, classifier.preprocessing) for data in encoded_images(rows)])
    assert np.abs(pixels.numpy() - pils).max() > 1e-3, "else this shows nothing"

    attack = attack_work(store, rows)
    assert measured(attack.open(), 0).failed == 0
    attacked = BlockElement.open(store, "adversarials", attack.adversarials_ref)
    assert np.abs(attacked.read_array(IMAGES, 0) - pixels.numpy()).max() < 3e-6

    clean = extraction_work(store, {"index": rows.fingerprint}, IndexSpec(rows.ref))
    assert measured(clean.open(), 0).failed == 0
    logits = BlockElement.open(store, "features", clean.features_ref).read_array(LOGITS, 0)
    np.testing.assert_allclose(logits, classifier(pixels).numpy(), rtol=1e-4, atol=1e-4)


def test_decoding_that_a_worker_cannot_do_is_refused(index: tuple[Store, SampleIndex]) -> None:
    store, rows = index
    for work in (
        attack_work(store, rows),
        extraction_work(store, {"index": rows.fingerprint}, IndexSpec(rows.ref)),
    ):
        with pytest.raises(ConfigurationError, match=r"decoder cuda: .* on cpu; give the workers"):
            work.open()
        images, model = IndexSpec(rows.ref, decode_workers=-1), replace(MODEL, decoder="pil")
        with pytest.raises(ClusterUsageError, match="-1 decode workers"):
            replace(work, model=model, images=images).open()


def test_stored_adversarials_need_no_decoder(index: tuple[Store, SampleIndex]) -> None:
    store, rows = index
    attack = attack_work(store, rows)
    fingerprint = BlockElement.open(store, "adversarials", attack.adversarials_ref).fingerprint
    images = AdversarialsSpec(attack.adversarials_ref)
    extraction_work(store, {"adversarials": fingerprint}, images).open()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: nvJPEG needs one")
def test_extraction_decodes_on_the_gpu(index: tuple[Store, SampleIndex]) -> None:
    store, rows = index
    work = extraction_work(store, {"index": rows.fingerprint}, IndexSpec(rows.ref))
    assert measured(replace(work, device="cuda").open(), 0).failed == 0
    logits = BlockElement.open(store, "features", work.features_ref).read_array(LOGITS, 0)
    classifier = load_classifier(MODEL)
    pixels = TorchvisionDecoder(classifier.preprocessing, "cuda")(encoded_images(rows)).pixels
    np.testing.assert_allclose(logits, classifier(pixels.cpu()).numpy(), rtol=1e-2, atol=1e-2)
