"""The trust region attack on models whose smallest perturbation is known, and on a real network."""

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regroup.attacks import AttackResult, make_attack, predictions, run_attack
from regroup.attacks.gradient.trust_region import TrustRegion, candidate_classes
from regroup.attacks.network import AttackedNetwork
from regroup.errors import ConfigurationError

SHAPE = (3, 4, 4)
SIZE = math.prod(SHAPE)
Norm = Literal["linf", "l2"]
Array = NDArray[np.float64]


class Linear(nn.Module):
    """Logits W x + b; weight: (M, SIZE), bias: (M,)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1) @ self.weight.T + self.bias


def linear(classes: int = 6, seed: int = 0) -> Linear:
    """Logits near 0 in the middle of [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((classes, SIZE), generator=generator)
    return Linear(weight, -0.5 * weight.sum(dim=1))


def samples(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, *SHAPE), generator=generator) * 0.2 + 0.4


def names(count: int) -> list[str]:
    return [f"s{i}" for i in range(count)]


def attack(model: nn.Module, pixels: Tensor, **parameters: Any) -> AttackResult:
    spec = TrustRegion(**parameters)
    return run_attack(spec, model, pixels, predictions(model, pixels), names(len(pixels)))


def boundaries(model: Linear, pixels: Tensor, norm: Norm) -> Array:
    """(N, M), distance to the boundary with each class in the attack's norm; inf: the own class."""
    logits = model(pixels).double().numpy()
    weight = model.weight.double().numpy()
    order, found = {"linf": 1, "l2": 2}[norm], np.full(logits.shape, np.inf)
    for i, y in enumerate(logits.argmax(axis=1)):
        for j in range(logits.shape[1]):
            if j != y:
                slope = np.linalg.norm(weight[y] - weight[j], ord=order)
                found[i, j] = (logits[i, y] - logits[i, j]) / slope
    return found


# ---- the closed form


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_finds_the_closed_form_of_a_linear_classifier(norm: Norm) -> None:
    model, pixels = linear(), samples(30)
    smallest = boundaries(model, pixels, norm).min(axis=1)
    longest = 2e-4 * (1 if norm == "linf" else math.sqrt(SIZE))
    result = attack(model, pixels, norm=norm, max_radius=2e-4)
    size = result.linf if norm == "linf" else result.l2
    assert result.claimed.all()
    assert smallest.max() / smallest.min() > 5  # each sample has a size of its own
    assert (size >= smallest * (1 - 1e-5)).all()
    assert (size <= smallest * (1 + 1e-5) + longest).all()  # less than one step beyond
    far = smallest > 20 * longest
    assert far.sum() >= 10
    assert (size[far] <= 1.05 * smallest[far]).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_by_default_it_is_within_ten_percent_and_a_first_step(norm: Norm) -> None:
    """The radius grows by 1.1, so that the last step is at most 0.1 of the way before it + 1e-4."""
    model, pixels = linear(), samples(30)
    smallest = boundaries(model, pixels, norm).min(axis=1)
    first = 1e-4 * (1 if norm == "linf" else math.sqrt(SIZE))
    result = attack(model, pixels, norm=norm)
    size = result.linf if norm == "linf" else result.l2
    assert result.claimed.all()
    assert (size >= smallest * (1 - 1e-5)).all()
    assert (size <= 1.1 * smallest + first + 1e-6).all()
    assert size.mean() < 1.08 * smallest.mean()
    assert result.steps.max() < 80


def two_ways() -> tuple[Linear, Tensor]:
    """Class 1 has the larger logit but is far away; class 2 is near, over other pixels."""
    weight = torch.zeros(3, SIZE)
    weight[1, :8], weight[2, 8:] = 0.5, 1.0
    pixels = torch.full((2, *SHAPE), 0.5)
    # The true class leads by 0.4 and 0.8: L-infinity distances of 0.1 and 0.02.
    return Linear(weight, torch.tensor([0.0, -0.4, -0.8]) - 0.5 * weight.sum(dim=1)), pixels


@pytest.mark.parametrize(
    ("parameters", "reached", "size"),
    [
        ({}, 2, 0.02),
        ({"candidates": 1}, 1, 0.1),
        ({"candidates": 2}, 2, 0.02),
        ({"choice": "fixed"}, 2, 0.02),
        ({"choice": "worst"}, 1, 0.1),
        ({"choice": "worst", "candidates": 1}, 1, 0.1),
    ],
)
def test_only_the_candidates_are_aimed_at(
    parameters: dict[str, Any], reached: int, size: float
) -> None:
    model, pixels = two_ways()
    result = attack(model, pixels, max_radius=1e-3, **parameters)
    assert predictions(model, torch.from_numpy(result.images)).tolist() == [reached, reached]
    np.testing.assert_allclose(result.linf, size, atol=1e-3)
    moved = result.images.reshape(2, SIZE) != pixels.numpy().reshape(2, SIZE)
    assert moved[:, :8].all() == (reached == 1)  # and no other pixel is touched
    assert moved[:, 8:].any() == (reached == 2)


def test_candidates_are_the_largest_other_logits() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0, 3.0, 4.0], [9.0, -2.0, -1.0, -3.0, 0.0]])
    labels = torch.tensor([1, 0])
    assert candidate_classes(logits, labels, 3).tolist() == [[4, 2, 3], [4, 2, 1]]
    assert candidate_classes(logits, labels, 9).tolist() == [[4, 2, 3, 0], [4, 2, 1, 3]]


def test_the_nearest_class_is_chosen_anew_at_each_step() -> None:
    class Ceiling(nn.Module):
        """Class 1 seems near but its logit rises no further than half-way."""

        def forward(self, pixels: Tensor) -> Tensor:
            flat = pixels.flatten(1)
            bright, dark = flat[:, 0] - 0.5, flat[:, 1] - 0.5
            return torch.stack((0 * dark + 0.1, bright.clamp(max=0.05), 0.4 * dark), dim=1)

    pixels = torch.full((1, *SHAPE), 0.5)
    nearest = attack(Ceiling(), pixels)
    assert predictions(Ceiling(), torch.from_numpy(nearest.images)).tolist() == [2]
    fixed = attack(Ceiling(), pixels, choice="fixed")
    assert not fixed.claimed.any()
    np.testing.assert_array_equal(fixed.images, pixels)
    assert fixed.steps[0] < 60  # a step that moves nothing is the last


# ---- the radius


def test_the_radius_grows_by_hand() -> None:
    """Class 1 beyond a mean of 0.5: steps of 0.01, 0.02, 0.03, 0.03, 0.03 from 0.4."""
    weight = torch.stack((torch.zeros(SIZE), torch.ones(SIZE)))
    model, pixels = Linear(weight, torch.tensor([0.0, -SIZE * 0.5])), torch.full((1, *SHAPE), 0.4)
    for norm in ("linf", "l2"):  # alike where all pixels move alike
        result = attack(model, pixels, norm=norm, radius=0.01, eta=2.0, max_radius=0.03)
        np.testing.assert_allclose(result.images, 0.52, atol=1e-6)
        assert result.steps.tolist() == [5]
        # The clean image twice (once to rank the classes), five steps, and the check beforehand.
        assert result.queries.tolist() == [1 + 1 + 6]
        assert result.backward_passes.tolist() == [6]


@pytest.mark.parametrize(
    ("scale", "expected"),
    [(0.25, [0.4, 0.44, 0.46, 0.47, 0.48]), (0.75, [0.4, 0.44, 0.48, 0.52, 0.56])],
)
def test_the_radius_shrinks_where_less_is_gained_than_promised(
    scale: float, expected: list[float]
) -> None:
    """`scale` of the promise is kept; below sigma_low the radius halves, down to its least."""

    class Broken(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            mean = pixels.mean(dim=(1, 2, 3))
            seen.append(float(mean[0].detach()))
            promised = scale * mean.detach() + (mean - mean.detach())
            return torch.stack((torch.ones_like(mean), promised), dim=1)

    seen: list[float] = []
    attack(Broken(), torch.full((1, *SHAPE), 0.4), radius=0.04, max_radius=0.04, min_radius=0.01,
           eta=2.0, steps=4)  # fmt: skip
    np.testing.assert_allclose(seen[-5:], expected, atol=1e-6)


# ---- the ball


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_with_an_epsilon_it_succeeds_where_the_ball_reaches_the_boundary(norm: Norm) -> None:
    model, pixels = linear(), samples(30)
    smallest = boundaries(model, pixels, norm).min(axis=1)
    epsilon = float(np.median(smallest))
    result = attack(model, pixels, norm=norm, epsilon=epsilon)
    size = result.linf if norm == "linf" else result.l2
    within, beyond = smallest < 0.99 * epsilon, smallest > epsilon * (1 + 1e-6)
    assert min(within.sum(), beyond.sum()) >= 12
    assert result.claimed[within].all()
    assert not result.claimed[beyond].any()
    assert (size <= epsilon * (1 + 1e-5)).all()
    np.testing.assert_array_equal(result.images[beyond], pixels.numpy()[beyond])
    np.testing.assert_array_equal(result.epsilon, np.where(result.claimed, epsilon, np.nan))


def test_without_an_epsilon_none_is_reported() -> None:
    assert np.isnan(attack(linear(), samples(2)).epsilon).all()


def test_images_stay_in_the_bounds() -> None:
    pixels = torch.rand((12, *SHAPE), generator=torch.Generator().manual_seed(3)).round()
    for norm in ("linf", "l2"):
        result = attack(linear(), pixels, norm=norm)
        assert result.images.dtype == np.float32
        assert result.images.min() >= 0
        assert result.images.max() <= 1
        assert result.claimed.any()


# ---- what it takes


@pytest.mark.parametrize(("choice", "later"), [("nearest", 4), ("fixed", 1), ("worst", 1)])
def test_passes_are_counted_and_bounded_by_the_cost(choice: Any, later: int) -> None:
    spec = TrustRegion(choice=choice, candidates=4, steps=6, radius=1e-5, max_radius=1e-5)
    model, pixels = linear(), samples(3)
    result = run_attack(spec, model, pixels, predictions(model, pixels), names(3))
    assert not result.claimed.any()
    assert result.steps.tolist() == [6] * 3
    assert (result.queries - 1).tolist() == [spec.cost().forward] * 3 == [8] * 3
    assert result.backward_passes.tolist() == [spec.cost().backward] * 3 == [4 + 5 * later] * 3


def test_the_network_makes_no_more_backward_passes_than_candidates() -> None:
    passes = []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, pixels: Tensor) -> Tensor:
            return pixels.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            passes.append(1)
            return gradient

    class Spy(Linear):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(Counted.apply(pixels))

    base, pixels = linear(), samples(16)
    attack(Spy(base.weight, base.bias), pixels, candidates=3, steps=5, max_radius=1e-4)
    assert len(passes) == 5 * 3  # for all rows of the batch together


# ---- what fails, what is refused


def test_a_sample_without_finite_logits_or_gradient_fails_alone() -> None:
    class Holes(Linear):
        def forward(self, pixels: Tensor) -> Tensor:
            first = pixels[:, 0, 0, 0]
            # The root has no finite slope at 0: 0 * inf is NaN.
            logits = super().forward(pixels) + 0 * first.sqrt()[:, None]
            return logits.masked_fill(((first > 0.3) & (first < 0.45))[:, None], torch.nan)

    weight = torch.stack((torch.zeros(SIZE), torch.ones(SIZE)))
    pixels = torch.full((5, *SHAPE), 0.6)
    pixels[1, 0, 0, 0], pixels[2, 0, 0, 0] = 0.45011, 0.0
    # The last one is over the boundary by its first step, which leads to a slope of NaN.
    pixels[4], pixels[4, 0, 0, 0] = 0.50005 * SIZE / (SIZE - 1), 1e-5
    bias = torch.tensor([0.0, -0.5 * SIZE])
    result = attack(Holes(weight, bias), pixels)
    message = "the network's logits or gradient are not finite at step "
    assert result.failures == {1: message + "2", 2: message + "0"}
    assert result.claimed.tolist() == [True, False, False, True, True]
    np.testing.assert_array_equal(result.images[1:3], pixels[1:3])
    assert result.images[4].min() == 0
    whole = attack(Linear(weight, bias), pixels)
    np.testing.assert_array_equal(result.images[[0, 3, 4]], whole.images[[0, 3, 4]])


def test_a_network_without_slope_is_no_success_and_no_failure() -> None:
    weight = torch.zeros(3, SIZE)
    result = attack(Linear(weight, torch.tensor([1.0, 0.0, 0.5])), samples(2))
    assert not result.claimed.any()
    assert not result.failures
    assert result.steps.tolist() == [0, 0]
    np.testing.assert_array_equal(result.images, samples(2))


def test_a_network_without_gradients_is_refused() -> None:
    class NoGrad(Linear):
        def forward(self, pixels: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(pixels)

    base = linear()
    with pytest.raises(ConfigurationError, match="no gradient with respect to its input"):
        attack(NoGrad(base.weight, base.bias), samples(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 2.0}, "did you mean 4/255"),
        ({"candidates": 0}, "candidates is 0: give at least 1"),
        ({"steps": 0}, "steps is 0: give at least 1"),
        ({"eta": 0.9}, "eta is 0.9: give at least 1"),
        ({"choice": "hardest"}, "unknown choice 'hardest': choose from nearest, fixed, worst"),
        ({"min_radius": 0.0}, "min_radius is 0: it must be positive"),
        ({"radius": 1e-6}, "radius is 1e-06: give min_radius <= radius <= max_radius"),
        ({"radius": 0.5}, "radius is 0.5: give min_radius <= radius <= max_radius"),
        ({"sigma_low": 0.95}, "sigma_low is 0.95: it must not be above sigma_high 0.9"),
        ({"norm": "l1"}, "unknown norm of trust-region 'l1': choose from linf, l2"),
        ({"protocol": "budget"}, "unknown protocol of trust-region 'budget'"),
        ({"targeted": True}, "supports only untargeted"),
        ({"confidence": 0.9}, "not support a confidence"),
    ],
)
def test_a_bad_parameter_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TrustRegion(**change)


def test_it_is_made_by_name() -> None:
    assert make_attack("trust-region", norm="l2") == TrustRegion(norm="l2", candidates=9)


# ---- what it stands on


def test_wide_images_and_threads_do_not_couple_samples() -> None:
    """On two threads torch adds up a wide batch of one in another order than a batch of three."""

    class Means(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            rows = [pixel.mean() + pixel.square().mean() for pixel in pixels]
            mean = torch.stack(rows)
            return torch.stack((0 * mean + 0.6, mean), dim=1)

    threads = torch.get_num_threads()
    pixels = torch.rand((3, 3, 112, 112), generator=torch.Generator().manual_seed(5)) * 0.2 + 0.3
    torch.set_num_threads(2)
    try:
        spec = TrustRegion(norm="l2", radius=7e-3, eta=1.3, max_radius=0.05)
        labels = torch.zeros(3, dtype=torch.int64)
        whole = run_attack(spec, Means(), pixels, labels, names(3), rows=3)
        alone = run_attack(spec, Means(), pixels[:1], labels[:1], names(1), rows=3)
    finally:
        torch.set_num_threads(threads)
    assert whole.claimed.all()
    np.testing.assert_array_equal(alone.images, whole.images[:1])


def test_gradients_of_a_linear_network_are_its_weights() -> None:
    model, pixels = linear(), samples(20)
    logits, found = AttackedNetwork(model).gradients(pixels, lambda z: z * 2)
    torch.testing.assert_close(logits, model(pixels))
    expected = (2 * model.weight).view(1, 6, *SHAPE).expand(20, -1, -1, -1, -1)
    torch.testing.assert_close(found, expected)
