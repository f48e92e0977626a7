"""REGroupClassifier on small networks: the scorer's predictions, and banks that do not fit."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regroup.accumulators import Extractor
from regroup.bank import SIGN_CHOICES, Bank, BankStatistics
from regroup.classifier import REGroupClassifier
from regroup.errors import ConfigurationError
from regroup.scoring import Scorer
from regroup.taps import TapPolicy

CLASSES = 5


class Network(nn.Module):
    """Two convolutions and a linear layer; counts its forward passes."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.activation = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, width, 3)
        self.head = nn.Linear(width, CLASSES)
        self.passes = 0
        self.recorded_gradients = False

    def forward(self, pixels: Tensor) -> Tensor:
        self.passes += 1
        self.recorded_gradients = torch.is_grad_enabled()
        hidden = self.activation(self.first(pixels))
        hidden = F.silu(self.second(hidden))
        logits: Tensor = self.head(hidden.mean((2, 3)))
        return logits


def network(width: int = 6) -> Network:
    torch.manual_seed(0)
    return Network(width).eval()


def images(n: int) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(n))


def bank_for(model: nn.Module, policy: TapPolicy = "preactivation") -> Bank:
    """Labels are dealt out: a bank of this model, if a useless one."""
    with torch.no_grad():
        extractor = Extractor(model, policy, images(2))
        accumulators = [a.numpy() for a in extractor(images(20)).accumulators]
    taps = [(tap.name, tap.channels) for tap in extractor.taps]
    statistics = BankStatistics.zeros(taps, CLASSES)
    statistics.update(accumulators, np.arange(20) % CLASSES, np.ones(20))
    return statistics.finalise()


@pytest.mark.parametrize("policy", ["preactivation", "linear"])
def test_predictions_are_the_scorers(policy: TapPolicy) -> None:
    model, pixels = network(), images(12)
    bank = bank_for(model, policy)
    with torch.no_grad():
        accumulators = Extractor(model, policy, pixels)(pixels).accumulators
    votes = Scorer(bank).votes(accumulators, np.zeros(12, np.int64))
    for k in (1, 2, 3):
        for s, signs in enumerate(SIGN_CHOICES):
            classifier = REGroupClassifier(model, bank, k, signs, policy, example=pixels[:2])
            sums = classifier(pixels)
            assert (sums.shape, sums.dtype) == ((12, CLASSES), torch.float32)
            assert sums.argmax(1).tolist() == votes.prediction[:, s, k - 1].tolist()
            np.testing.assert_array_equal(sums, Scorer(bank).borda_sums(accumulators, k, signs))


def test_one_forward_pass_and_no_gradient() -> None:
    model = network()
    classifier = REGroupClassifier(model, bank_for(model), 2, example=images(2))
    before = model.passes
    assert not classifier(images(7).requires_grad_()).requires_grad
    assert model.passes == before + 1
    assert not model.recorded_gradients, "its activations need not be kept"


def test_it_is_a_module_around_the_model() -> None:
    model = network()
    classifier = REGroupClassifier(model, bank_for(model), 3, example=images(2)).eval()
    assert not REGroupClassifier(model, bank_for(model), 3, example=images(2)).training
    assert [name for name, _ in classifier.named_children()] == ["model"]
    expected = classifier(images(4))
    copied = copy.deepcopy(classifier)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
        model.first.weight.neg_()
    assert torch.equal(copied(images(4)), expected), "the copy has a network of its own"
    assert not torch.equal(classifier(images(4)), expected)
    with pytest.raises(ConfigurationError, match="training"):
        classifier.train()(images(4))


def test_a_lower_precision_network_is_scored_in_float32() -> None:
    model = network()
    pixels = images(4)
    classifier = REGroupClassifier(model, bank_for(model), 3, example=pixels)
    classifier.to(torch.bfloat16)
    sums = classifier(pixels.to(torch.bfloat16))
    assert sums.dtype == torch.float32
    assert sums.sum(1).tolist() == [3 * 2 * sum(range(CLASSES))] * 4


def test_tap_names_may_start_inside_the_model() -> None:
    model = network()
    bank = bank_for(model)
    wrapped = nn.Sequential(nn.Identity(), model).eval()
    with pytest.raises(ConfigurationError, match="another model"):
        REGroupClassifier(wrapped, bank, 2, example=images(2))
    inside = REGroupClassifier(wrapped, bank, 2, example=images(2), root_module=model)
    plain = REGroupClassifier(model, bank, 2, example=images(2))
    assert torch.equal(inside(images(3)), plain(images(3)))


@pytest.mark.parametrize("k", [0, 4, -1])
def test_k_out_of_range(k: int) -> None:
    model = network()
    with pytest.raises(ConfigurationError, match=f"k = {k}: .* from 1 to 3"):
        REGroupClassifier(model, bank_for(model), k, example=images(2))


def test_unknown_signs() -> None:
    model = network()
    with pytest.raises(ConfigurationError, match="'all': choose both, positive, negative"):
        REGroupClassifier(model, bank_for(model), 1, "all", example=images(2))


def test_a_bank_of_another_model() -> None:
    model, other = network(), bank_for(network(width=7))
    message = r"another model: its tap .* of 7 channels is, in this model, .* of 6"
    with pytest.raises(ConfigurationError, match=message):
        REGroupClassifier(model, other, 2, example=images(2))
    REGroupClassifier(model, other, 1, example=images(2))  # the logits are alike
    with pytest.raises(ConfigurationError, match=r"its tap activation of 4 channels is, .* first"):
        REGroupClassifier(model, bank_for(model), 3, "both", "linear", example=images(2))


def test_a_bank_of_a_deeper_model() -> None:
    model = network()
    bank = bank_for(model)
    mixtures = (bank.mixtures[0], *bank.mixtures)
    deeper = replace(bank, taps=("stem", *bank.taps), mixtures=mixtures)
    REGroupClassifier(model, deeper, 3, example=images(2))
    with pytest.raises(ConfigurationError, match="4 of its taps vote, the model has 3"):
        REGroupClassifier(model, deeper, 4, example=images(2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_it_moves_with_its_model() -> None:
    model = network()
    classifier = REGroupClassifier(model, bank_for(model), 3, example=images(2))
    classifier(images(4))
    assert classifier.to("cuda")(images(4).cuda()).device.type == "cuda"
    assert classifier.to("cpu")(images(4)).device.type == "cpu"
