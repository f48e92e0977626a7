"""The paper's and ImageNet's usual networks: each sees images as its weights were trained to."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from regroup.accumulators import Extractor
from regroup.images.preprocessing import Preprocessing, decode_image
from regroup.models import ModelSpec, load_classifier


@pytest.fixture
def photo() -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (20, 27, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((460, 380), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "weights", "resize", "crop"),
    [
        ("resnet50", "ResNet50_Weights.IMAGENET1K_V2", 232, 224),
        ("vgg19", "VGG19_Weights.IMAGENET1K_V1", 256, 224),
        ("inception_v3", "Inception_V3_Weights.IMAGENET1K_V1", 342, 299),
    ],
)
def test_images_are_prepared_as_by_the_weights_own_transforms(
    name: str, weights: str, resize: int, crop: int, photo: bytes
) -> None:
    model = load_classifier(ModelSpec(name, "random"))
    assert model.preprocessing == Preprocessing(crop, resize, "bilinear")
    transforms = torchvision.models.get_weight(weights).transforms(antialias=True)
    with Image.open(io.BytesIO(photo)) as image:
        expected = transforms(image)
    ours = model.normalize(torch.from_numpy(decode_image(photo, model.preprocessing))[None])[0]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_older_weights_bring_their_older_preprocessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    state = torchvision.models.resnet50().state_dict()
    url = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url
    torch.save(state, folder / url.rpartition("/")[2])
    model = load_classifier(ModelSpec("resnet50", "IMAGENET1K_V1"))
    assert model.preprocessing == Preprocessing(224, 256, "bilinear")
    assert torch.equal(model.network.get_parameter("fc.weight"), state["fc.weight"])


def test_the_preset_can_be_overridden() -> None:
    spec = ModelSpec("inception_v3", "random", resize=128, crop=96, interpolation="bicubic")
    assert load_classifier(spec).preprocessing == Preprocessing(96, 128, "bicubic")


@pytest.mark.parametrize("policy", ["preactivation", "linear"])
def test_inception_gives_its_main_logits_and_no_auxiliary_tap(policy: str) -> None:
    model = load_classifier(ModelSpec("inception_v3", "random", resize=96, crop=96))
    assert any(name.startswith("AuxLogits") for name in model.network.state_dict())
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    reference = torchvision.models.inception_v3(
        weights=None, transform_input=True, init_weights=False
    )
    reference.load_state_dict(model.network.state_dict())
    with torch.inference_mode():
        extractor = Extractor(model, policy, images[:1], root_module=model.network)  # type: ignore[arg-type]
        found = extractor(images)
        expected = reference.eval()(model.normalize(images))
    assert tuple(found.logits.shape) == (2, 1000)
    torch.testing.assert_close(found.logits, expected)
    assert len(extractor.taps) == 95, "94 convolutions with ReLU, and the logits"
    assert not [tap.name for tap in extractor.taps if "Aux" in tap.name]
