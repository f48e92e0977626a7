"""Classifiers of timm by name: preprocessing from timm's data config, weights from a file."""

from __future__ import annotations

import json
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


@pytest.fixture
def folder(timm: object, tmp_path: Path) -> Path:
    """A network of four classes as timm's `save_for_hf` writes it."""
    from timm import create_model

    place = tmp_path / "my nets" / "small"
    place.mkdir(parents=True)
    network = create_model("test_resnet", num_classes=4)
    save_weights(network, place / "model.safetensors", {})
    config = {
        "input_size": [3, 32, 32], "num_classes": 4, "label_names": ["a", "b", "c", "d"],
        "mean": [0.25] * 3, "std": [0.5] * 3, "first_conv": "conv1.0", "classifier": "fc",
        "crop_pct": 1.0,
    }  # fmt: skip
    described = {"architecture": "test_resnet", "num_classes": 4, "pretrained_cfg": config}
    (place / "config.json").write_text(json.dumps(described))
    return place


def test_a_folder_of_timm_is_a_network_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    found = load_classifier(ModelSpec(f"timm:local-dir:{folder}"))
    assert (found.num_classes, found.class_names) == (4, ("a", "b", "c", "d"))
    assert found.normalisation.describe() == {"mean": [0.25] * 3, "std": [0.5] * 3}
    assert found.preprocessing == Preprocessing(32, 32, "bicubic")
    moved = folder.rename(tmp_path / "elsewhere")
    again = load_classifier(ModelSpec(f"timm:local-dir:{moved}"))
    assert again.describe() == found.describe()
    assert str(tmp_path) not in json.dumps(found.describe())
    assert torch.equal(again(pixels(32)), found(pixels(32)))
    weights = str(moved / "model.safetensors")
    read = load_classifier(ModelSpec(f"timm:local-dir:{moved}", weights))
    assert torch.equal(read(pixels(32)), found(pixels(32)))


def test_a_folder_without_a_network_is_refused(timm: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no .*config\.json, which names"):
        load_classifier(ModelSpec(f"timm:local-dir:{tmp_path}"))
    (tmp_path / "config.json").write_text('{"architecture": "no_such_net", "pretrained_cfg": {}}')
    with pytest.raises(ConfigurationError, match="cannot be made with timm's own weights"):
        load_classifier(ModelSpec(f"timm:local-dir:{tmp_path}"))


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18.a1_in1k", "hf_hub:someone/net@v1"])
def test_a_name_of_the_hub_is_asked_there(
    timm: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def offline(model_id: str, *_: object, **__: object) -> None:
        asked.append(model_id)
        raise OSError("\x1b[31mcannot reach\x1b[0m\nthe hub")

    monkeypatch.setattr("timm.models._factory.load_model_config_from_hf", offline)
    with pytest.raises(ConfigurationError, match=r"\(OSError: cannot reach the hub\): give a loc"):
        load_classifier(ModelSpec(f"timm:{name}"))
    assert asked == [name.partition(":")[2]]


def test_features_without_a_classifier_are_refused(timm: object) -> None:
    with pytest.raises(ConfigurationError, match="has no classifier, only features"):
        load_classifier(ModelSpec("timm:vit_small_patch16_224.dino", "random"))


def test_another_number_of_classes_needs_weights_of_that_number(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="trained on 4 classes: --num-classes 7 needs a"):
        load_classifier(ModelSpec(f"timm:local-dir:{folder}", num_classes=7))
    seven = load_classifier(ModelSpec("timm:test_resnet", "random", num_classes=7))
    save_weights(seven.network, tmp_path / "seven.safetensors", {})
    found = load_classifier(ModelSpec("timm:test_resnet", str(tmp_path / "seven.safetensors")))
    assert (found.num_classes, found.class_names) == (7, None)
    torch.testing.assert_close(found(pixels()), seven(pixels()))
