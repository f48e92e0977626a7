"""The demo's network: it learns the digits, reproducibly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from regroup.models import (
    DIGITS_METADATA,
    ModelSpec,
    load_classifier,
    save_weights,
    train_digits_cnn,
)

Digits = tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.int64]]]


@pytest.fixture(scope="module")
def digits() -> Digits:
    """scikit-learn's scans, 16 px, three equal channels, in a fixed shuffled order."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    small = torch.from_numpy(bunch.images[order].astype(np.float32) / 16)[:, None]
    pixels = functional.interpolate(small, size=16, mode="bilinear").expand(-1, 3, -1, -1)
    return pixels.contiguous().numpy(), bunch.target[order].astype(np.int64)


def test_the_demo_network_learns_the_digits_and_again_the_same(
    digits: Digits, tmp_path: Path
) -> None:
    pixels, labels = digits
    network = train_digits_cnn(pixels[:1437], labels[:1437], seed=0)
    save_weights(network, tmp_path / "digits.safetensors", DIGITS_METADATA)
    model = load_classifier(ModelSpec("digits-cnn", str(tmp_path / "digits.safetensors")))
    predicted = model(torch.from_numpy(pixels[1437:])).argmax(dim=1).numpy()
    assert (predicted == labels[1437:]).mean() >= 0.97
    few = pixels[:200], labels[:200]
    one, again = (train_digits_cnn(*few, seed=5, epochs=2) for _ in range(2))
    other = train_digits_cnn(*few, seed=6, epochs=2)
    for key, tensor in one.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key])
    assert not torch.equal(one.get_parameter("linear.weight"), other.get_parameter("linear.weight"))


def test_the_weights_do_not_depend_on_the_number_of_threads(digits: Digits) -> None:
    before = torch.get_num_threads()
    try:
        states = [_state_by(threads, digits) for threads in (1, 2, 4)]
    finally:
        torch.set_num_threads(before)
    for key, tensor in states[0].items():
        assert all(torch.equal(tensor, other[key]) for other in states[1:]), key


def _state_by(threads: int, digits: Digits) -> dict[str, torch.Tensor]:
    torch.set_num_threads(threads)
    trained = train_digits_cnn(digits[0][:200], digits[1][:200], seed=5, epochs=1)
    assert torch.get_num_threads() == threads, "those of the caller are restored"
    return trained.state_dict()
