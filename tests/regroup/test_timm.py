"""Classifiers of timm by name: preprocessing from timm's data config, weights from a file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from regroup.accumulators import Extractor
from regroup.errors import ConfigurationError
from regroup.images.preprocessing import Preprocessing
from regroup.models import ModelSpec, load_classifier, save_weights
from regroup.models.imagenet import imagenet_wnids

NAME = "timm:resnet18.a1_in1k"


@pytest.fixture
def timm() -> object:
    return pytest.importorskip("timm")


def pixels(side: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_preprocessing_is_that_of_the_data_config(timm: object) -> None:
    found = load_classifier(ModelSpec(NAME, "random"))
    assert found.preprocessing == Preprocessing(224, 235, "bicubic"), "crop_pct 0.95"
    assert found.normalisation.mean == (0.485, 0.456, 0.406)
    assert found.class_names == imagenet_wnids()
    halves = load_classifier(ModelSpec("timm:mobilevit_xxs", "random"))
    assert halves.normalisation.mean == (0.0, 0.0, 0.0), "pixels as they are"
    assert halves.preprocessing == Preprocessing(256, 284, "bicubic")


def test_the_spec_overrides_the_data_config(timm: object) -> None:
    spec = ModelSpec(NAME, "random", resize=80, crop=64, interpolation="bilinear", num_classes=7)
    found = load_classifier(spec)
    assert found.preprocessing == Preprocessing(64, 80, "bilinear")
    assert (found.num_classes, found.class_names) == (7, None)


def test_logits_are_timms_behind_the_normalisation(timm: object, tmp_path: Path) -> None:
    made = load_classifier(ModelSpec(NAME, "random", seed=3))
    save_weights(made.network, tmp_path / "w.safetensors", {})
    read = load_classifier(ModelSpec(NAME, str(tmp_path / "w.safetensors")))
    mean, std = ((torch.tensor(x).view(3, 1, 1)) for x in (made.normalisation.mean,
                                                           made.normalisation.std))  # fmt: skip
    with torch.inference_mode():
        torch.testing.assert_close(read(pixels()), made.network((pixels() - mean) / std))
    assert read.weights_sha256 != made.weights_sha256, "of the file's bytes"


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "efficientnet_lite0"])
@pytest.mark.parametrize("policy", ["preactivation", "linear"])
def test_timm_networks_have_taps(timm: object, name: str, policy: str) -> None:
    found = load_classifier(ModelSpec(f"timm:{name}", "random"))
    images = pixels(found.preprocessing.crop)
    with torch.inference_mode():
        extractor = Extractor(found, policy, images, root_module=found.network)  # type: ignore[arg-type]
        extraction = extractor(images)
    assert len(extractor.taps) > 10
    assert all(bool((a >= 0).all()) and a.sum() > 0 for a in extraction.accumulators)
    torch.testing.assert_close(extraction.logits, found(images))


def test_unknown_name_is_refused_with_the_nearest(timm: object) -> None:
    with pytest.raises(ConfigurationError, match=r"timm has no model 'resnet5x'.*timm:resnet5"):
        load_classifier(ModelSpec("timm:resnet5x", "random"))


def test_weights_that_cannot_be_downloaded_are_one_sentence(
    timm: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    with pytest.raises(ConfigurationError, match=r"own weights .*no route to host.* local weights"):
        load_classifier(ModelSpec(NAME))


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigurationError, match="pip install timm"):
        load_classifier(ModelSpec(NAME, "random"))
