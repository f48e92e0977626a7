"""REGroup on CIFAR-10 against an attacker who knows it: nothing is left at 4/255.

A bank of 50 training images per class (a lossy JPEG copy), k = 5, both signs, the first 200 test
images that softmax gets right. `docs/adaptive.md` has the other balls.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from regroup.accumulators import Extractor
from regroup.attacks import make_attack, predictions, run_attack, verify
from regroup.bank import BankStatistics
from regroup.defenses.regroup import REGroup
from regroup.defenses.smooth_votes import SmoothDivergences
from regroup.defenses.spec import Material
from regroup.models.load import load_classifier
from regroup.models.spec import ModelSpec
from regroup.scales import ScaleSums
from tests.regroup.attack_subjects import names

PER_CLASS, ATTACKED = 50, 200


def read(path: Path, count: int) -> tuple[Tensor, NDArray[np.int64]]:
    """The first images (count, 3, 32, 32) in [0, 1] of a Parquet file, and their labels."""
    rows = pq.read_table(path).slice(0, count).to_pydict()
    images, labels = rows.values()
    pixels = [np.asarray(Image.open(io.BytesIO(each["bytes"])).convert("RGB")) for each in images]
    return torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) / 255), (
        np.array(labels)
    )


@pytest.fixture(scope="module")
def subject(shared_data: Path) -> tuple[object, object, Tensor, NDArray[np.int64]]:
    """The network, the network behind REGroup, and the images that the network gets right."""
    weights = str(shared_data / "weights" / "cifar10-resnet20.safetensors")
    model = load_classifier(ModelSpec("cifar-resnet20", weights=weights))
    pixels, labels = read(shared_data / "cifar10" / "train-00000-of-00005.parquet", 900)
    extractor = Extractor(model, "preactivation", pixels[:2], root_module=model.network)
    with torch.inference_mode():
        extraction = extractor(pixels)
    confidence, predicted = (each.numpy() for each in extraction.logits.softmax(1).max(1))
    chosen = np.concatenate(
        [np.flatnonzero((predicted == labels) & (labels == y))[:PER_CLASS] for y in range(10)]
    )
    accumulators = [each.numpy()[chosen] for each in extraction.accumulators]
    statistics = BankStatistics.zeros([(tap.name, tap.channels) for tap in extractor.taps], 10)
    statistics.update(accumulators, labels[chosen], confidence[chosen])
    bank = statistics.finalise()
    sums = ScaleSums(2 * len(bank.taps))
    sums.add(SmoothDivergences(bank, (0, 1))([torch.from_numpy(each) for each in accumulators]))
    material = Material(pixels[:2], bank, sums.scales().reshape(-1, 2))
    test, true = read(shared_data / "cifar10" / "test-00000-of-00002.parquet", 300)
    right = np.flatnonzero(predictions(model, test).numpy() == true)[:ATTACKED]
    return model, REGroup(k=5).defend(model, material), test[right], true[right]


@pytest.mark.parametrize("surrogate", ["standardised", "soft-borda"])
def test_nothing_is_left_in_a_ball_of_4(subject: tuple[object, ...], surrogate: str) -> None:
    _, robust, pixels, labels = subject
    assert isinstance(robust, torch.nn.Module)
    assert isinstance(pixels, Tensor)
    assert isinstance(labels, np.ndarray)
    right = predictions(robust, pixels).numpy() == labels
    assert 150 < right.sum() < 175
    spec = make_attack("apgd", epsilon=4 / 255, restarts=5, surrogate=surrogate)
    result = run_attack(spec, robust, pixels[right], labels[right], names(int(right.sum())))
    verified = verify(spec, robust, result.images, labels[right], result.target)
    assert right.sum() - verified.success.sum() <= 1
    assert result.backward_passes.mean() < 5
    assert result.zero_gradients.sum() == 0
