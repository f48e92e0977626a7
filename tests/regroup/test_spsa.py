"""SPSA on models whose gradient and smallest perturbation are known, and on a real network."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regroup.attacks import AttackResult, make_attack, predictions, run_attack
from regroup.attacks.batch import AttackBatch
from regroup.attacks.network import AttackedNetwork
from regroup.attacks.random_streams import stream
from regroup.attacks.score import spsa
from regroup.attacks.score.spsa import SPSA, Descent
from regroup.errors import ConfigurationError

SHAPE = (3, 4, 4)
SIZE = math.prod(SHAPE)


class Linear(nn.Module):
    """Two classes; logit 1 minus logit 0 is w . x + b. There is no gradient to be had."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            margin = pixels.flatten(1) @ self.weight + self.bias
            return torch.stack((torch.zeros_like(margin), margin), dim=1)


class Bowl(nn.Module):
    """Logit 0 minus logit 1 is 1 - sum(w * (x - 0.2)^2)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, pixels: Tensor) -> Tensor:
        height = (self.weight * (pixels.flatten(1) - 0.2).square()).sum(dim=1)
        return torch.stack((1 - height, torch.zeros_like(height)), dim=1)


def signs(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (SIZE,), generator=generator) * 2.0 - 1.0


def samples(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, *SHAPE), generator=generator) * 0.4 + 0.3


def names(count: int) -> list[str]:
    return [f"s{i}" for i in range(count)]


def attack(model: nn.Module, pixels: Tensor, **parameters: Any) -> AttackResult:
    spec = SPSA(**parameters)
    return run_attack(spec, model, pixels, predictions(model, pixels), names(len(pixels)))


def estimate(model: nn.Module, pixels: Tensor, step: int = 0, **parameters: Any) -> Tensor:
    labels = predictions(model, pixels)
    batch = AttackBatch(pixels, labels, torch.full_like(labels, -1), tuple(names(len(pixels))))
    descent = Descent(SPSA(**parameters), AttackedNetwork(model), batch)
    return descent.estimate(torch.arange(len(pixels)), step).flatten(1)


# ---- the estimated gradient


@pytest.mark.parametrize("delta", [0.01, 0.3])
def test_over_all_directions_the_estimate_is_the_gradient(
    monkeypatch: pytest.MonkeyPatch, delta: float
) -> None:
    every = np.array(list(itertools.product((0, 1), repeat=4)), np.uint8)  # 16 sign vectors
    bits = torch.from_numpy(np.packbits(every, axis=1, bitorder="little"))
    monkeypatch.setattr(spsa, "direction_bits", lambda *_: bits)
    pixels = torch.tensor([[0.3, 0.5, 0.1, 0.6], [0.7, 0.2, 0.4, 0.3]]).view(2, 1, 2, 2)
    weight = torch.tensor([0.3, -2.0, 0.5, 0.01])
    parameters: dict[str, Any] = {"samples": 16, "delta": delta}
    # The true class is 1 where w . x + 5 > 0: the loss is w . x + 5.
    linear = estimate(Linear(weight, 5.0), pixels, **parameters)
    np.testing.assert_allclose(linear, weight.expand(2, 4), atol=2e-4)
    # Differences of both sides are exact for a parabola too.
    bowl = estimate(Bowl(weight), pixels, **parameters)
    expected = -2 * weight * (pixels.flatten(1) - 0.2)
    np.testing.assert_allclose(bowl, expected, atol=2e-4)


@pytest.mark.parametrize("count", [128, 4096])
def test_the_error_of_the_estimate_falls_as_theory_says(count: int) -> None:
    """Mean of v v^T w over n directions: E |g - w|^2 = |w|^2 (D - 1) / n."""
    weight = torch.linspace(-1, 2, SIZE)
    pixels = samples(40)
    found = estimate(Linear(weight, 40.0), pixels, samples=count).double()
    ratio = (found - weight).square().sum(dim=1) / weight.square().sum()
    assert ratio.mean() == pytest.approx((SIZE - 1) / count, rel=0.25)
    cosine = torch.cosine_similarity(found, weight.double().expand_as(found))
    assert cosine.mean() == pytest.approx(1 / math.sqrt(1 + (SIZE - 1) / count), abs=0.02)


def test_directions_are_fair_signs_of_the_sample_and_the_step() -> None:
    spec = SPSA(samples=512)

    def drawn(sample: str, step: int) -> Tensor:
        bits = spsa.direction_bits(spec, sample, step, SIZE)
        return spsa.signs(bits, torch.Size(SHAPE))

    first = drawn("a", 0)
    assert first.shape == (512, *SHAPE)
    assert set(first.flatten().tolist()) == {-1.0, 1.0}
    products = first.flatten(1).T @ first.flatten(1) / 512 - torch.eye(SIZE)
    assert products.abs().max() < 0.25  # independent: five standard deviations
    assert first.mean(dim=0).abs().max() < 0.25
    assert torch.equal(first, drawn("a", 0))
    assert not torch.equal(first, drawn("a", 1))
    assert not torch.equal(first, drawn("b", 0))


# ---- against a literal reference


def reference(
    spec: SPSA, sample: str, clean: NDArray[np.float64], gradient: NDArray[np.float64], steps: int
) -> NDArray[np.float64]:
    """The iterate after `steps`, of a loss with this constant gradient; float64, one sample."""
    assert spec.epsilon is not None
    x, mean, square = clean.copy(), np.zeros(SIZE), np.zeros(SIZE)
    for step in range(steps):
        raw = stream(spec, sample, step).bytes(spec.samples * SIZE // 8)
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        estimated = np.zeros(SIZE)
        for v in bits.reshape(spec.samples, SIZE) * 2.0 - 1.0:
            difference = gradient @ (x + spec.delta * v) - gradient @ (x - spec.delta * v)
            estimated += difference * v / (2 * spec.delta) / spec.samples
        mean = 0.9 * mean + 0.1 * estimated
        square = 0.999 * square + 0.001 * estimated**2
        unbiased = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.999 ** (step + 1))
        x = x - spec.learning_rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        x = np.clip(np.clip(x, clean - spec.epsilon, clean + spec.epsilon), 0, 1)
    return x


@pytest.mark.parametrize("count", [5, 100])
@pytest.mark.parametrize("steps", [1, 2, 6])
def test_the_iterates_are_those_of_the_reference(steps: int, count: int) -> None:
    weight = torch.linspace(-1, 2, SIZE)
    pixels = torch.cat((samples(2), samples(1) * 0.02))  # the last one is stopped by 0
    spec = SPSA(epsilon=0.025, samples=count, steps=steps)
    result = attack(Linear(weight, 50.0), pixels, **{"epsilon": 0.025}, samples=count, steps=steps)
    assert not result.claimed.any()
    for i, clean in enumerate(pixels.flatten(1).double().numpy()):
        expected = reference(spec, f"s{i}", clean, weight.double().numpy(), steps)
        np.testing.assert_allclose(result.images[i].ravel(), expected, atol=1e-5)


# ---- what comes of it


def test_it_succeeds_where_the_ball_reaches_the_boundary() -> None:
    weight = signs() * torch.linspace(0.5, 1.5, SIZE)
    model, pixels = Linear(weight, -0.5 * float(weight.sum())), samples(40)
    margin = pixels.flatten(1) @ weight + model.bias
    smallest = (margin.abs() / weight.abs().sum()).numpy()
    epsilon = float(np.median(smallest))
    result = attack(model, pixels, epsilon=epsilon, steps=60)
    beyond, within = smallest > epsilon, smallest < 0.97 * epsilon
    assert beyond.sum() >= 15
    assert within.sum() >= 15
    assert not result.claimed[beyond].any()
    assert result.claimed[within].all()
    assert (result.steps[beyond] == 60).all()
    assert (result.linf <= epsilon + 1e-6).all()
    fooled = predictions(model, torch.from_numpy(result.images)) != predictions(model, pixels)
    np.testing.assert_array_equal(fooled.numpy(), result.claimed)


def test_a_sample_stops_once_its_margin_is_negative() -> None:
    model, pixels = Linear(torch.ones(SIZE), -SIZE * 0.5), torch.full((3, *SHAPE), 0.4)
    pixels[1] = 0.46  # 0.04 to go; the second has none of Adam's first step (0.01) to spare
    pixels[0] = 0.495
    result = attack(model, pixels, epsilon=0.2, samples=4096, steps=60)
    assert result.claimed.all()
    # With this many directions every step is 0.01 in every pixel, but for a few percent.
    assert result.steps[0] == 1
    assert 4 <= result.steps[1] <= 6
    assert 10 <= result.steps[2] <= 13
    np.testing.assert_array_equal(result.queries, 1 + result.steps * (2 * 4096 + 1))
    assert not result.backward_passes.any()
    mean = result.images.mean(axis=(1, 2, 3))
    assert (mean > 0.5).all()
    assert (mean < 0.512).all()  # not a step further than it takes


def test_iterates_stay_in_the_ball_and_in_the_bounds() -> None:
    pixels = torch.rand((6, *SHAPE), generator=torch.Generator().manual_seed(3))
    result = attack(Linear(signs(), 60.0), pixels, epsilon=0.05, steps=12)
    assert not result.claimed.any()
    assert result.images.dtype == np.float32
    assert result.images.min() == 0
    assert result.images.max() == 1
    assert (result.linf <= 0.05 + 1e-6).all()
    assert result.linf == pytest.approx(0.05, abs=1e-6)
    assert (result.epsilon == 0.05).all()


def test_a_targeted_attack_is_over_only_at_its_target() -> None:
    class Three(nn.Module):
        """Class 1 is reached by brighter pixels, class 2, beyond it, by much brighter ones."""

        def forward(self, pixels: Tensor) -> Tensor:
            mean = pixels.mean(dim=(1, 2, 3))
            return torch.stack((torch.zeros_like(mean), mean - 0.42, 3 * mean - 1.4), dim=1)

    pixels = torch.full((2, *SHAPE), 0.4)
    parameters: dict[str, Any] = {"epsilon": 0.2, "samples": 512, "steps": 40}
    free = attack(Three(), pixels, **parameters)
    assert predictions(Three(), torch.from_numpy(free.images)).tolist() == [1, 1]
    spec = SPSA(targeted=True, **parameters)
    labels = torch.zeros(2, dtype=torch.int64)
    result = run_attack(spec, Three(), pixels, labels, names(2), targets=np.array([2, 2]))
    assert result.claimed.all()
    assert predictions(Three(), torch.from_numpy(result.images)).tolist() == [2, 2]
    assert (result.steps > free.steps).all()


def test_at_most_so_many_images_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = AttackedNetwork.logits

    def logits(self: AttackedNetwork, pixels: Tensor) -> Tensor:
        asked.append(len(pixels))
        return original(self, pixels)

    monkeypatch.setattr(AttackedNetwork, "logits", logits)
    for count in (1, 3, 128, 200):
        attack(Linear(signs(), 60.0), samples(40), epsilon=0.05, steps=1, samples=count)
    assert max(asked) == spsa.MAX_IMAGES
    # 40 samples with 3 directions share their batches: 240 images in two.
    asked.clear()
    attack(Linear(signs(), 60.0), samples(40), epsilon=0.05, steps=1, samples=3)
    assert sorted(asked) == [40, 40, 40, 114, 126]  # and before, beforehand and afterwards


# ---- what is refused, what fails


def test_a_sample_without_finite_logits_fails_alone() -> None:
    class Holes(Linear):
        def forward(self, pixels: Tensor) -> Tensor:
            logits = super().forward(pixels)
            return logits.masked_fill(pixels[:, :1, 0, 0] < 0.2, torch.nan)

    weight = torch.ones(SIZE)
    pixels = torch.full((4, *SHAPE), 0.6)
    pixels[1, 0, 0, 0] = 0.203  # its directions lead into the hole
    pixels[3, 0, 0, 0] = 0.207  # its first iterate does
    parameters: dict[str, Any] = {"epsilon": 0.05, "steps": 4, "samples": 256, "delta": 0.005}
    result = attack(Holes(weight, -0.3 * SIZE), pixels, **parameters)
    assert result.failures == {
        1: "the network's logits are not finite after 0 steps",
        3: "the network's logits are not finite after 1 steps",
    }
    assert not result.claimed.any()
    whole = attack(Linear(weight, -0.3 * SIZE), pixels, **parameters)
    np.testing.assert_array_equal(result.images[[0, 2]], whole.images[[0, 2]])
    np.testing.assert_array_equal(result.images[1], pixels[1])
    assert result.queries.tolist() == [1 + 4 * 513, 1 + 512, 1 + 4 * 513, 1 + 513]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 4.0}, "did you mean 4/255"),
        ({"epsilon": None}, "spsa needs an epsilon"),
        ({"steps": 0}, "steps is 0: give at least 1"),
        ({"samples": 0}, "samples is 0: give at least 1"),
        ({"delta": 0.0}, "delta is 0: it must be positive"),
        ({"learning_rate": -1.0}, "learning_rate is -1: it must be positive"),
        ({"norm": "l2"}, "unknown norm of spsa 'l2': choose from linf"),
        ({"protocol": "minimal"}, "unknown protocol of spsa 'minimal'"),
        ({"confidence": 0.9}, "not support a confidence"),
    ],
)
def test_a_bad_parameter_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SPSA(**change)


def test_the_defaults_are_the_issues() -> None:
    spec = make_attack("spsa")
    assert spec == SPSA(
        epsilon=4 / 255, steps=300, samples=128, delta=0.01, learning_rate=0.01, targeted=False
    )
    assert spec.cost().forward == 300 * 257
    assert spec.cost().backward == 0
