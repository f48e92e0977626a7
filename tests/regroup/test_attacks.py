"""Specs, random streams, distances and both PGD protocols on models whose answer is known."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from regroup.attacks import AttackResult, make_attack, predictions, run_attack
from regroup.attacks.pgd.attack import PGD
from regroup.attacks.pgd.minimal import EpsilonSearch
from regroup.attacks.pgd.steps import start_noise
from regroup.attacks.random_streams import stream
from regroup.attacks.result import distances
from regroup.errors import ConfigurationError

SHAPE = (3, 4, 4)
SIZE = math.prod(SHAPE)


class Linear(nn.Module):
    """Two classes; logit 1 minus logit 0 is w . x + b."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = bias

    def forward(self, pixels: Tensor) -> Tensor:
        margin = pixels.flatten(1) @ self.weight + self.bias
        return torch.stack((torch.zeros_like(margin), margin), dim=1)


class Window(nn.Module):
    """Wrong (class 1) only where the mean pixel lies in 0.51 .. 0.61."""

    def forward(self, pixels: Tensor) -> Tensor:
        margin = 0.05 - (pixels.mean(dim=(1, 2, 3)) - 0.56).abs()
        return torch.stack((torch.zeros_like(margin), margin), dim=1)


class Constant(nn.Module):
    """Class 0 whatever the pixels."""

    def forward(self, pixels: Tensor) -> Tensor:
        nothing = 0 * pixels.mean(dim=(1, 2, 3))
        return torch.stack((nothing + 1, nothing), dim=1)


def signs(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (SIZE,), generator=generator) * 2.0 - 1.0


def samples(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, *SHAPE), generator=generator) * 0.4 + 0.3


def names(count: int) -> list[str]:
    return [f"s{i}" for i in range(count)]


def attack(model: nn.Module, pixels: Tensor, **parameters: Any) -> AttackResult:
    spec = PGD(**parameters)
    return run_attack(spec, model, pixels, predictions(model, pixels), names(len(pixels)))


# ---- the spec


@pytest.mark.parametrize("epsilon", [4.0, -0.1, 0.0, float("nan")])
def test_an_epsilon_outside_pixel_units_is_explained(epsilon: float) -> None:
    with pytest.raises(ConfigurationError, match=r"in \[0,1\] pixel units: did you mean 4/255\?"):
        PGD(epsilon=epsilon)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0: give at least 1"),
        ({"growth_limit": 0}, "growth_limit is 0"),
        ({"bisections": -1}, "bisections is -1"),
        ({"step_ratio": 0.0}, "step_ratio is 0: it must be positive"),
        ({"norm": "l0"}, "unknown norm of pgd 'l0': choose from linf, l2"),
        ({"protocol": "both"}, "unknown protocol 'both': choose from minimal, budget"),
        ({"confidence": 90.0}, "confidence is 90: it is a softmax probability between 0 and 1"),
        ({"confidence": 1.0}, "confidence is 1: it is"),
    ],
)
def test_a_bad_parameter_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PGD(epsilon=4 / 255, **change)


def test_an_unknown_attack_or_parameter_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown attack 'pdg': did you mean pgd\?"):
        make_attack("pdg")
    with pytest.raises(ConfigurationError, match=r"no parameter 'step': did you mean steps\?"):
        make_attack("pgd", step=3)
    assert make_attack("pgd", steps=3) == PGD(steps=3)


def test_repr_shows_every_parameter_and_describe_is_json() -> None:
    spec = PGD(epsilon=0.25, keep="linf")
    assert all(f"{field.name}=" in repr(spec) for field in dataclasses.fields(spec))
    assert json.loads(json.dumps(spec.describe())) == spec.describe()
    assert {field.name for field in dataclasses.fields(spec)} < spec.describe().keys()


def test_parameters_of_the_search_do_not_change_a_budget_attack() -> None:
    one = PGD(epsilon=0.1, protocol="budget", bisections=3)
    other = PGD(epsilon=0.1, protocol="budget", growth_limit=2)
    assert one.describe() == other.describe()
    assert PGD(epsilon=0.1).describe() != PGD(epsilon=0.1, bisections=3).describe()


# ---- streams and distances


def test_streams_differ_by_seed_attack_sample_and_try() -> None:
    base = PGD(epsilon=0.1)
    other = [
        (PGD(epsilon=0.1, seed=1), "a", 0),
        (PGD(epsilon=0.1, protocol="budget"), "a", 0),
        (base, "b", 0),
        (base, "a", 1),
    ]
    first = stream(base, "a", 0).random(4)
    assert np.array_equal(first, stream(base, "a", 0).random(4))
    assert not any(np.array_equal(first, stream(*key).random(4)) for key in other)


def test_start_noise_fills_the_ball_and_is_zero_without_random_start() -> None:
    noise = start_noise(PGD(epsilon=0.1), "a", 0, 0.1, (3, 32, 32))
    assert noise.abs().max() <= 0.1
    assert noise.min() < -0.099
    assert noise.max() > 0.099
    assert abs(noise.mean().item()) < 0.005
    still = start_noise(PGD(epsilon=0.1, random_start=False), "a", 0, 0.1, SHAPE)
    assert not still.any()


def test_distances_by_hand() -> None:
    clean = np.zeros((1, 1, 2, 2), np.float32)
    images = np.array([[[[0.5, 0.0], [0.0, 0.25]]]], np.float32)
    measured = distances(images, clean)
    assert measured.linf[0] == 0.5
    assert measured.mse[0] == 0.3125 / 4
    assert measured.l2[0] == np.float32(math.sqrt(0.3125))


# ---- minimal


def test_the_search_grows_then_bisects() -> None:
    search = EpsilonSearch(4.0, growth_limit=20, bisections=3)
    tried = []
    for outcome in (False, False, True, True, False):
        tried.append(search.epsilon)
        assert search.advance(outcome)
    assert tried == [4.0, 6.0, 9.0, 4.5, 2.25]
    assert search.epsilon == 3.375
    assert not search.advance(True)
    assert search.attempt == 6


@given(limit=st.integers(1, 30), bisections=st.integers(0, 30), threshold=st.floats(1e-3, 1e4))
def test_the_search_makes_the_tries_it_may_and_brackets_the_threshold(
    limit: int, bisections: int, threshold: float
) -> None:
    search = EpsilonSearch(1.0, limit, bisections)
    grown = next((i for i in range(limit) if 1.5**i >= threshold), None)
    while search.advance(search.epsilon >= threshold):
        pass
    if grown is None:
        assert search.attempt == limit
        assert math.isinf(search.good)
    else:
        assert search.attempt == grown + 1 + bisections
        assert search.bad < threshold <= search.good
        assert search.good - search.bad == pytest.approx(1.5**grown / 2**bisections, rel=1e-6)


@pytest.mark.parametrize("epsilon", [0.1, 0.002], ids=["shrinks", "grows"])
def test_minimal_finds_the_closed_form_of_a_linear_classifier(epsilon: float) -> None:
    model = Linear(signs(), -0.5 * float(signs().sum()))
    pixels = samples(20)
    margin = pixels.flatten(1) @ model.weight + model.bias
    smallest = (margin.abs() / model.weight.abs().sum()).numpy()
    assert smallest.max() / smallest.min() > 5  # each sample has a radius of its own
    # 80 steps of epsilon / 30 cross the ball from any random start.
    result = attack(model, pixels, epsilon=epsilon, steps=80)
    assert result.claimed.all()
    np.testing.assert_allclose(result.linf, smallest, rtol=2e-3)
    np.testing.assert_allclose(result.mse, smallest**2, rtol=4e-3)
    np.testing.assert_array_less(result.linf, result.epsilon + 1e-6)


def test_no_perturbation_is_below_the_closed_form_with_unequal_weights() -> None:
    weight = signs() * torch.linspace(0.1, 2, SIZE)
    model = Linear(weight, 0.2)
    pixels = samples(20)
    smallest = (pixels.flatten(1) @ weight + 0.2).abs() / weight.abs().sum()
    result = attack(model, pixels, epsilon=4 / 255, bisections=8)
    assert result.claimed.all()
    assert (result.linf >= smallest.numpy() * (1 - 1e-4)).all()
    assert (result.linf <= smallest.numpy() * 1.5).all()


@pytest.mark.parametrize("model", [Constant()])
def test_a_classifier_that_cannot_be_fooled_returns_the_clean_image(model: nn.Module) -> None:
    pixels = samples(3)
    result = attack(model, pixels, epsilon=0.1, steps=3, growth_limit=4)
    assert not result.claimed.any()
    np.testing.assert_array_equal(result.images, pixels.numpy())
    assert np.isnan(result.epsilon).all()
    assert result.linf.tolist() == [0.0] * 3
    assert result.steps.tolist() == [4 * 3] * 3
    assert result.queries.tolist() == [4 * (3 + 1) + 1] * 3


def test_growth_ends_at_its_limit() -> None:
    model, pixels = Linear(torch.ones(SIZE), -SIZE * 0.5), torch.full((1, *SHAPE), 0.4)
    # A ball of 0.1 is needed; 0.05 grows to 0.05, 0.075, 0.1125.
    parameters: dict[str, Any] = {"epsilon": 0.05, "steps": 80, "bisections": 0}
    assert not attack(model, pixels, growth_limit=2, **parameters).claimed[0]
    result = attack(model, pixels, growth_limit=3, **parameters)
    assert result.claimed[0]
    assert result.epsilon[0] == pytest.approx(0.1125)


def test_a_try_stops_at_its_first_success() -> None:
    model, pixels = Linear(torch.ones(SIZE), -SIZE * 0.5), torch.full((1, *SHAPE), 0.4)
    # From 0.4 to beyond 0.5 in steps of 0.2 * 0.3 = 0.06: two steps, three forward passes.
    result = attack(model, pixels, epsilon=0.3, step_ratio=0.2, random_start=False, bisections=0)
    assert result.steps.tolist() == [2]
    assert result.queries.tolist() == [3 + 1]
    assert result.linf[0] == pytest.approx(0.12, abs=1e-6)


def test_a_start_that_already_fools_is_judged_after_its_first_step() -> None:
    weight = torch.zeros(SIZE)
    weight[0] = 1  # the first pixel decides; a quarter of all starts are wrong at once
    model, pixels = Linear(weight, -0.45), torch.full((24, *SHAPE), 0.4)
    result = attack(model, pixels, epsilon=0.1, steps=80, growth_limit=1, bisections=0)
    assert result.claimed.all()
    assert result.steps.min() == 1
    assert (result.queries == result.steps + 1 + 1).all()


def test_more_bisections_never_enlarge_the_perturbation() -> None:
    weight = signs() * torch.linspace(0.01, 2, SIZE)
    model, pixels = Linear(weight, 0.2), samples(20)
    sizes = [attack(model, pixels, epsilon=0.1, bisections=n).mse for n in range(8)]
    for smaller, larger in zip(sizes[1:], sizes, strict=False):
        assert (smaller <= larger).all()
    assert (sizes[-1] < 0.9 * sizes[0]).any()


@pytest.mark.parametrize(("protocol", "leaves"), [("minimal", 1), ("budget", 0)])
def test_only_the_start_of_minimal_leaves_the_bounds(protocol: Any, leaves: int) -> None:
    seen = []

    class Spy(Linear):
        def forward(self, pixels: Tensor) -> Tensor:
            seen.append(bool((pixels > 1).any() or (pixels < 0).any()))
            return super().forward(pixels)

    parameters: dict[str, Any] = {"steps": 5, "growth_limit": 1, "bisections": 0}
    model, pixels = Spy(signs(), 100.0), torch.full((1, *SHAPE), 0.99)
    attack(model, pixels, epsilon=0.1, protocol=protocol, **parameters)
    assert sum(seen) == leaves


@pytest.mark.parametrize("count", [1, 7, 40])
def test_the_network_sees_batches_of_one_size(count: int) -> None:
    seen = set()

    class Spy(Linear):
        def forward(self, pixels: Tensor) -> Tensor:
            seen.add(len(pixels))
            return super().forward(pixels)

    attack(Spy(signs(), 0.3), samples(count), epsilon=0.1, steps=5, bisections=2)
    assert seen == {16}


# ---- budget


def test_budget_moves_to_the_corner_of_the_ball_and_of_the_bounds() -> None:
    weight = signs()
    pixels = torch.where(torch.arange(SIZE).view(SHAPE) % 2 == 0, 0.97, 0.03)[None]
    model = Linear(weight, -1.0 - float(pixels.flatten() @ weight))
    result = attack(model, pixels, epsilon=0.1, steps=60, protocol="budget")
    corner = (pixels + 0.1 * weight.view(1, *SHAPE)).clamp(0, 1)
    np.testing.assert_allclose(result.images, corner.numpy(), atol=1e-6)
    assert result.claimed.all() == bool((model(corner).argmax(1) == 1).all())
    assert result.steps.tolist() == [60]
    assert result.queries.tolist() == [61 + 1]


def test_budget_keeps_an_iterate_that_fooled_though_the_last_did_not() -> None:
    pixels = torch.full((1, *SHAPE), 0.5)
    parameters: dict[str, Any] = {
        "epsilon": 0.1, "step_ratio": 1.0, "random_start": False, "protocol": "budget"
    }  # fmt: skip
    for steps in (1, 2, 3, 4):  # 0.5 -> 0.6 (wrong) -> 0.5 (right) -> ...
        result = attack(Window(), pixels, steps=steps, **parameters)
        assert result.claimed[0], steps
        np.testing.assert_allclose(result.images, 0.6, atol=1e-6)


def test_budget_without_success_keeps_the_final_iterate() -> None:
    model = Linear(torch.ones(SIZE), -SIZE * 0.9)
    pixels = torch.full((1, *SHAPE), 0.5)
    result = attack(model, pixels, epsilon=0.1, steps=60, protocol="budget")
    assert not result.claimed[0]
    np.testing.assert_allclose(result.images, 0.6, atol=1e-6)


@pytest.mark.parametrize("protocol", ["minimal", "budget"])
def test_images_stay_in_the_ball_and_in_the_bounds(protocol: Any) -> None:
    pixels = torch.rand((12, *SHAPE), generator=torch.Generator().manual_seed(3))
    result = attack(Linear(signs(), 0.1), pixels, epsilon=0.2, bisections=6, protocol=protocol)
    assert result.images.dtype == np.float32
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    assert (result.linf <= result.epsilon + 1e-6).all()


# ---- what is refused


def test_misclassified_samples_are_named() -> None:
    model, pixels = Linear(signs(), 0.3), samples(4)
    labels = predictions(model, pixels)
    labels[2] = 1 - labels[2]
    with pytest.raises(ValueError, match=r"misclassified: s2$"):
        run_attack(PGD(epsilon=0.1), model, pixels, labels, names(4))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (samples(2) + 1, r"lie in \[0, 1\]"),
        (samples(2) * torch.nan, r"lie in \[0, 1\]"),
        (samples(2).double(), "float64"),
        (samples(3), "3 images, 2 labels and 2 sample ids"),
    ],
)
def test_bad_pixels_are_refused(pixels: Tensor, message: str) -> None:
    labels = np.zeros(2, np.int64)
    with pytest.raises(ValueError, match=message):
        run_attack(PGD(epsilon=0.1), Linear(signs(), 0.3), pixels, labels, names(2))


def test_a_model_without_gradients_is_refused() -> None:
    class NoGrad(Linear):
        def forward(self, pixels: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(pixels)

    with pytest.raises(ConfigurationError, match="no gradient"):
        attack(NoGrad(signs(), 0.3), samples(2), epsilon=0.1)


def test_no_samples_give_an_empty_result() -> None:
    result = attack(Linear(signs(), 0.3), samples(0), epsilon=0.1)
    assert result.images.shape == (0, *SHAPE)
    assert result.claimed.shape == result.epsilon.shape == result.l2.shape == (0,)
