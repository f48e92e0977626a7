"""Precision and memory format: in the fingerprint, close to float32, sums always in float32."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from regroup.accumulators import Extraction, Extractor
from regroup.errors import ConfigurationError
from regroup.images.preprocessing import Preprocessing
from regroup.models import Classifier, Compute, ModelSpec, load_classifier

CHOICES = [
    Compute(),
    Compute("bf16"),
    Compute("fp16"),
    Compute(channels_last=True),
    Compute(tf32=True),
    Compute("bf16", channels_last=True),
]
SIDE = 67


class Ones(nn.Module):
    """One channel of exact ones, SIDE x SIDE of them: 4489 is no bfloat16 or float16."""

    preprocessing = Preprocessing(SIDE)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.conv.weight, 1.0)
        self.linear = nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        response = self.conv(x)
        self.seen = response.dtype, x.is_contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.linear(torch.relu(response).mean(dim=(2, 3)))
        return logits


def classifier(name: str, compute: Compute) -> Classifier:
    random = None if ":" in name else "random"
    return load_classifier(ModelSpec(name, random, compute=compute))


def of_ones(model: Classifier) -> tuple[torch.dtype, bool]:
    """Precision of its response, and whether its images were channels-last."""
    assert isinstance(model.network, Ones)
    return model.network.seen


def extract(model: Classifier, pixels: Tensor) -> Extraction:
    with torch.inference_mode():
        return Extractor(model, "preactivation", pixels)(pixels)


def pixels(side: int, samples: int = 4) -> Tensor:
    return torch.rand(samples, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_each_choice_has_its_own_description_and_the_default_none() -> None:
    described = [classifier("digits-cnn", choice).describe() for choice in CHOICES]
    assert "compute" not in described[0]
    assert described[1]["compute"] == {"dtype": "bf16"}
    assert all(a != b for a, b in itertools.combinations(described, 2))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_sums_are_float32_under_autocast(dtype: str) -> None:
    model = classifier("tests.regroup.test_compute:Ones", Compute(dtype))  # type: ignore[arg-type]
    found = extract(model, torch.full((2, 3, SIDE, SIDE), 1 / 3))
    assert of_ones(model)[0] == {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    assert found.accumulators[0].dtype == found.logits.dtype == torch.float32
    assert found.accumulators[0][:, 0].flatten().tolist() == pytest.approx([SIDE**2] * 2, rel=1e-4)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_autocast_is_close_to_float32_but_not_it(dtype: str) -> None:
    plain = extract(classifier("digits-cnn", Compute()), pixels(16))
    low = extract(classifier("digits-cnn", Compute(dtype)), pixels(16))  # type: ignore[arg-type]
    for ours, theirs in zip(low.accumulators, plain.accumulators, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02 * float(theirs.max()))
    assert not torch.equal(low.accumulators[0], plain.accumulators[0])


@pytest.mark.parametrize("name", ["digits-cnn", "resnet18"])
def test_channels_last_gives_the_same_accumulators(name: str) -> None:
    side = 16 if name == "digits-cnn" else 64
    plain = extract(classifier(name, Compute()), pixels(side))
    last = extract(classifier(name, Compute(channels_last=True)), pixels(side))
    for ours, theirs in zip(last.accumulators, plain.accumulators, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.max()))


def test_network_sees_channels_last_images_and_weights() -> None:
    name = "tests.regroup.test_compute:Ones"
    for wanted in (False, True):
        model = classifier(name, Compute(channels_last=wanted))
        model(pixels(SIDE))
        assert of_ones(model)[1] == wanted
    model = classifier("digits-cnn", Compute(channels_last=True))
    weight = model.network.get_parameter("blocks.1.0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("wanted", [False, True])
def test_tf32_is_what_was_asked_for(wanted: bool) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = not wanted
        Compute(tf32=wanted).set_tf32()
        assert torch.backends.cudnn.allow_tf32 == wanted
        assert torch.get_float32_matmul_precision() == ("high" if wanted else "highest")
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_unknown_dtype_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="fp32, bf16, fp16"):
        Compute("fp8")  # type: ignore[arg-type]
