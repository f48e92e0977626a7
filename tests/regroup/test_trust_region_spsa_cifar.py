"""The trust region attack and SPSA on convolutional networks: the same examples for any batch."""

import dataclasses
import io
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regroup.attacks import AttackResult, AttackSpec, predictions, run_attack
from regroup.attacks.batch import AttackBatch
from regroup.attacks.gradient.trust_region import TrustRegion
from regroup.attacks.network import AttackedNetwork
from regroup.attacks.score.spsa import SPSA, Descent, margin
from regroup.models import Classifier, ModelSpec, load_classifier

_UNEQUAL = ("seconds", "failures")


@pytest.fixture(scope="module")
def resnet(shared_data: Path) -> Classifier:
    weights = shared_data / "weights" / "cifar10-resnet20.safetensors"
    return load_classifier(ModelSpec("cifar-resnet20", str(weights)))


@pytest.fixture(scope="module")
def photographs(shared_data: Path, resnet: Classifier) -> Tensor:
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(shared_data / "cifar10" / "test-00000-of-00002.parquet").slice(0, 12)
    files = [Image.open(io.BytesIO(row["bytes"])) for row in table["image"].to_pylist()]
    stacked = np.stack([np.asarray(file.convert("RGB"), np.float32) for file in files]) / 255
    pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()
    keep = predictions(resnet, pixels) == torch.tensor(table["label"].to_pylist())
    return pixels[keep.nonzero()[:8, 0]]


def untrained() -> tuple[nn.Module, Tensor]:
    """A network that needs no file: its examples must not depend on the batch either."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 6 * 6, 10),
        )  # fmt: skip
        return network.eval(), torch.rand(20, 3, 16, 16)  # more than one batch of 16


@pytest.fixture(params=["resnet20", "untrained"])
def subject(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    if request.param == "untrained":
        return untrained()
    return request.getfixturevalue("resnet"), request.getfixturevalue("photographs")


def names(count: int) -> list[str]:
    return [f"image-{i}" for i in range(count)]


def in_batches(spec: AttackSpec, model: nn.Module, pixels: Tensor, size: int) -> dict[str, Any]:
    labels, ids, parts = predictions(model, pixels), names(len(pixels)), []
    for i in range(0, len(pixels), size):
        rows = slice(i, i + size)
        torch.manual_seed(size)  # must not matter
        parts.append(run_attack(spec, model, pixels[rows], labels[rows], ids[rows]))
    fields = [f.name for f in dataclasses.fields(AttackResult) if f.name not in _UNEQUAL]
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in fields}


# ---- trust region


@pytest.mark.parametrize(("norm", "limit"), [("linf", 2 / 255), ("l2", 0.35)])
def test_trust_region_gives_the_same_examples_for_any_batch_size(
    subject: tuple[nn.Module, Tensor], norm: Literal["linf", "l2"], limit: float
) -> None:
    network, pixels = subject
    spec = TrustRegion(norm=norm, epsilon=limit, radius=1e-3, candidates=2, steps=60)
    whole = in_batches(spec, network, pixels, 64)
    assert whole["claimed"].mean() >= 0.5
    for size, count in ((1, 3), (7, len(pixels))):
        for name, values in in_batches(spec, network, pixels[:count], size).items():
            expected = whole[name][:count]
            np.testing.assert_array_equal(values, expected, err_msg=f"{name}, {size}")


def test_trust_region_needs_small_perturbations(resnet: Classifier, photographs: Tensor) -> None:
    labels = predictions(resnet, photographs)
    spec = TrustRegion(choice="fixed")
    result = run_attack(spec, resnet, photographs, labels, names(len(labels)))
    assert result.claimed.all()
    assert (predictions(resnet, torch.from_numpy(result.images)) != labels).all()
    assert np.median(result.linf) < 1 / 255


def test_gradients_of_many_losses_are_those_of_each(
    resnet: Classifier, photographs: Tensor
) -> None:
    network, labels = AttackedNetwork(resnet), predictions(resnet, photographs)

    def losses(logits: Tensor, true: Tensor) -> Tensor:
        return logits[:, :3] - logits.gather(1, true[:, None])

    def second(logits: Tensor, true: Tensor) -> Tensor:
        return losses(logits, true)[:, 1]

    logits, found = network.gradients(photographs, losses, labels)
    seen, one = network.gradient(photographs, second, labels)
    assert found.shape == (len(photographs), 3, *photographs.shape[1:])
    assert torch.equal(logits, seen)
    torch.testing.assert_close(found[:, 1], one)
    _, alone = network.gradients(photographs[4:5], losses, labels[4:5])
    assert torch.equal(alone[0], found[4])


# ---- SPSA


@pytest.mark.parametrize("count", [12, 70], ids=["shared batches", "split directions"])
def test_spsa_gives_the_same_examples_for_any_batch_size(
    subject: tuple[nn.Module, Tensor], count: int
) -> None:
    network, pixels = subject
    pixels = pixels if count == 12 else pixels[:2]
    spec = SPSA(epsilon=8 / 255, steps=3, samples=count)
    whole = in_batches(spec, network, pixels, 64)
    assert len(set(whole["steps"].tolist())) > 1 or count == 70  # some are over before others
    for size in (1, 7):
        for name, values in in_batches(spec, network, pixels, size).items():
            np.testing.assert_array_equal(values, whole[name], err_msg=f"{name}, {size}")


def test_spsas_estimate_follows_the_gradient(resnet: Classifier, photographs: Tensor) -> None:
    """Where the network bends little within delta: the cosine of n random directions in D."""
    pixels = photographs[:1]
    labels = predictions(resnet, pixels)
    network = AttackedNetwork(resnet)
    none = torch.full_like(labels, -1)
    _, exact = network.gradient(pixels, margin, labels, none)
    batch = AttackBatch(pixels, labels, none, tuple(names(1)))
    descent = Descent(SPSA(samples=512, delta=1e-4), network, batch)
    found = descent.estimate(torch.arange(1), 0).flatten(1)
    cosine = torch.cosine_similarity(found, exact.flatten(1))
    expected = 1 / math.sqrt(1 + (pixels[0].numel() - 1) / 512)
    np.testing.assert_allclose(cosine, expected, atol=0.06)
