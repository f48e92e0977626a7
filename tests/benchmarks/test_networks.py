"""The networks that benchmarks build themselves are torchvision's."""

from __future__ import annotations

import pytest
import torch
import torchvision

from benchmarks.networks import build, noise
from regroup.taps import discover_taps


@pytest.mark.parametrize("name", ["resnet50", "vgg19"])
def test_the_logits_are_torchvisions_with_its_weights(name: str) -> None:
    theirs = torchvision.models.get_model(name, weights=None, num_classes=10).eval()
    ours = build(name, 10)
    ours.load_state_dict(theirs.state_dict())
    pixels = noise(2, 64, "cpu")
    with torch.no_grad():
        assert torch.equal(ours(pixels), theirs(pixels))


@pytest.mark.parametrize("name", ["resnet50", "vgg19"])
@pytest.mark.parametrize("policy", ["preactivation", "linear"])
def test_the_taps_are_torchvisions(name: str, policy: str) -> None:
    theirs = torchvision.models.get_model(name, weights=None, num_classes=10).eval()
    pixels = noise(1, 32, "cpu")
    assert discover_taps(build(name, 10), pixels, policy) == discover_taps(theirs, pixels, policy)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resnet50", "vgg19-32"])
def test_responses_neither_die_nor_overflow_and_images_differ(name: str) -> None:
    with torch.no_grad():
        logits = build(name, 10)(noise(4, 32, "cpu"))
    assert torch.isfinite(logits).all()
    assert 1e-2 < logits.std() < 1e4
    assert (logits[0] - logits[1]).abs().max() > 1e-3
