"""Draws as arguments: families of deterministic networks, means over them, their gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regroup.attacks.network import AttackedNetwork
from regroup.defenses.draws import Purpose, draw_generator
from regroup.defenses.stochastic import StochasticNetwork
from regroup.errors import ConfigurationError
from tests.regroup.attack_subjects import SHAPE, Bent, samples


class Noisy(StochasticNetwork):
    """The network behind additive noise, the same for every row."""

    def drawn(self, pixels: Tensor, purpose: Purpose, draw: int) -> Tensor:
        generator = draw_generator(0, purpose, draw)
        noise = torch.randn(SHAPE, generator=generator) * 0.05
        return torch.as_tensor(self.model(pixels + noise))


def test_a_draw_is_a_function_of_its_key() -> None:
    keys: list[Any] = [
        (0, "attack", 0, "a"),
        (1, "attack", 0, "a"),
        (0, "judge", 0, "a"),
        (0, "attack", 1, "a"),
        (0, "attack", 0, "b"),
    ]
    drawn = [torch.rand(4, generator=draw_generator(*key)) for key in keys]
    again = [torch.rand(4, generator=draw_generator(*key)) for key in keys]
    assert all(torch.equal(one, other) for one, other in zip(drawn, again, strict=True))
    assert len({tuple(each.tolist()) for each in drawn}) == len(keys)


def test_the_decision_is_the_mean_probability_over_the_judging_draws() -> None:
    noisy, pixels = Noisy(Bent(), 4, 2), samples(6)
    mean = torch.stack([noisy.drawn(pixels, "judge", r).softmax(1) for r in range(4)]).mean(0)
    torch.testing.assert_close(noisy(pixels).exp(), mean)
    classes = noisy.each_draw(pixels)
    assert classes.shape == (4, 6)
    assert torch.equal(classes[2], noisy.drawn(pixels, "judge", 2).argmax(1))


@pytest.mark.parametrize(
    ("surrogate", "purpose"), [("eot", "attack"), ("known-randomness", "judge")]
)
def test_a_surrogate_has_the_gradient_of_its_familys_mean(surrogate: str, purpose: Purpose) -> None:
    noisy, leaf = Noisy(Bent(), 3, 3), samples(4).requires_grad_()
    scores = noisy.views(leaf, surrogate).scores
    (found,) = torch.autograd.grad(scores[:, 1].sum(), leaf)
    probabilities = torch.stack([noisy.drawn(leaf, purpose, r).softmax(1) for r in range(3)])
    (expected,) = torch.autograd.grad(probabilities.mean(0).log()[:, 1].sum(), leaf)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(noisy.views(leaf, surrogate).decision, noisy(leaf.detach()))


def test_a_row_depends_on_no_other() -> None:
    noisy, pixels = Noisy(Bent(), 2, 2), samples(9)
    attacked = AttackedNetwork(noisy)

    def loss(scores: Tensor) -> Tensor:
        return scores[:, 0]

    whole = attacked.ascent(pixels, loss)
    alone = attacked.ascent(pixels[5:6], loss)
    assert torch.equal(whole.gradient[5:6], alone.gradient)
    assert torch.equal(whole.logits[5:6], alone.logits)


@pytest.mark.parametrize("draws", [(0, 1), (1, 0)])
def test_no_draws_are_refused(draws: tuple[int, int]) -> None:
    with pytest.raises(ConfigurationError, match="draws is 0: give at least 1"):
        Noisy(nn.Identity(), *draws)
