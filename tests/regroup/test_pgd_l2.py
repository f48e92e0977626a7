"""PGD in the L2 ball: closed forms of a linear classifier, Foolbox as oracle, NaN gradients."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regroup.attacks import predictions
from regroup.attacks.lp_balls import BALLS
from regroup.attacks.pgd.attack import PGD
from regroup.attacks.pgd.steps import start_noise
from regroup.errors import ConfigurationError
from tests.regroup.attack_subjects import (
    SHAPE,
    SIZE,
    BadGradient,
    Bent,
    Plane,
    assert_any_batch_gives_the_same,
    attack,
    attack_rows,
    samples,
)

WEIGHT = torch.linspace(0.1, 2, SIZE) * (-1) ** torch.arange(SIZE)
PLANE = Plane(WEIGHT, 0.2)
STILL: dict[str, Any] = {"norm": "l2", "random_start": False}
COMBINATIONS = [
    pytest.param(
        {"norm": norm, "protocol": protocol, "targeted": targeted, "confidence": confidence},
        id="-".join([norm, protocol, "targeted" * targeted, "confident" * bool(confidence)]),
    )
    for norm in ("linf", "l2")
    for protocol in ("minimal", "budget")
    for targeted in (False, True)
    for confidence in (None, 0.9)
]
RADIUS = {"linf": 0.05, "l2": 0.4}


def lengths(images: Tensor) -> Tensor:
    return images.double().flatten(1).square().sum(dim=1).sqrt()


# ---- the random start


def test_the_start_is_uniform_in_the_ball() -> None:
    spec, shape = PGD(norm="l2", epsilon=2.0), (3, 1, 1)
    starts = torch.stack([start_noise(spec, f"s{i}", 0, 2.0, shape) for i in range(3000)])
    assert starts.dtype == torch.float32
    # Of a uniform point, the share of the ball nearer to the centre is uniform in 0 .. 1.
    shares = ((lengths(starts) / 2) ** 3).sort().values
    uniform = (torch.arange(3000) + 0.5) / 3000
    assert (shares - uniform).abs().max() < 1.63 / math.sqrt(3000)  # Kolmogorov-Smirnov, 1 %
    octants = ((starts.flatten(1) > 0) * torch.tensor([1, 2, 4])).sum(dim=1).bincount(minlength=8)
    assert octants.min() > 375 - 4 * math.sqrt(375)


def test_a_start_of_many_values_lies_near_the_sphere_and_inside() -> None:
    noise = start_noise(PGD(norm="l2", epsilon=0.5), "a", 3, 0.5, (3, 32, 32))
    assert 0.49 < float(lengths(noise[None])) <= 0.5 * (1 + 1e-6)
    assert not torch.equal(noise, start_noise(PGD(norm="l2"), "a", 4, 0.5, (3, 32, 32)))


# ---- the ball


def test_a_step_is_along_the_gradient_and_as_long_as_asked() -> None:
    clean = torch.full((1, *SHAPE), 0.5)
    x, usable = BALLS["l2"].step(clean, clean, 7 * WEIGHT.view(1, *SHAPE), 0.1, 1.0)
    expected = clean + 0.1 * (WEIGHT / WEIGHT.norm()).view(1, *SHAPE)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)
    assert usable.all()


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30], ids=str)
def test_tiny_and_huge_gradients_step_as_far_as_others(scale: float) -> None:
    clean = torch.full((1, *SHAPE), 0.5)
    gradient = (WEIGHT.view(1, *SHAPE) * scale).contiguous()  # its square is 0 or inf in float32
    x, usable = BALLS["l2"].step(clean, clean, gradient, 0.1, 1.0)
    assert float(lengths(x - clean)) == pytest.approx(0.1, rel=1e-2)
    assert usable.all()


def test_projection_is_to_the_sphere_then_to_the_bounds() -> None:
    clean = torch.cat((torch.full((1, *SHAPE), 0.5), torch.full((1, *SHAPE), 0.99)))
    x, _ = BALLS["l2"].step(clean, clean, torch.ones(2, *SHAPE), 3.0, 1.0)
    torch.testing.assert_close(x[0], clean[0] + 1 / math.sqrt(SIZE), rtol=0, atol=1e-6)
    assert (x[1] == 1).all()


def test_a_zero_gradient_gives_no_step() -> None:
    class Flat(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            nothing = 0 * pixels.sum(dim=(1, 2, 3))
            return torch.stack((nothing + 1, nothing), dim=1)

    pixels = samples(3)
    result = attack(PGD(protocol="budget", epsilon=1.0, steps=3, **STILL), Flat(), pixels)
    np.testing.assert_array_equal(result.images, pixels.numpy())
    assert not result.failures
    assert not result.claimed.any()


# ---- budget


def test_budget_moves_along_the_weights_to_the_sphere() -> None:
    pixels = samples(6)
    sign = torch.where(PLANE.margin(pixels) > 0, -1.0, 1.0)[:, None]
    corner = pixels + 0.25 * (sign * WEIGHT / WEIGHT.norm()).view(-1, *SHAPE)
    assert corner.min() > 0
    assert corner.max() < 1
    straight = attack(PGD(protocol="budget", epsilon=0.25, **STILL), PLANE, pixels)
    np.testing.assert_allclose(straight.images, corner.numpy(), atol=1e-5)
    # From a random start the step turns towards it by its share at a time.
    turned = attack(PGD(norm="l2", protocol="budget", epsilon=0.25, steps=400), PLANE, pixels)
    np.testing.assert_allclose(turned.images, corner.numpy(), atol=1e-4)


@pytest.mark.parametrize("protocol", ["minimal", "budget"])
def test_images_stay_in_the_ball_and_in_the_bounds(protocol: Any) -> None:
    pixels = torch.rand((12, *SHAPE), generator=torch.Generator().manual_seed(3))
    spec = PGD(norm="l2", epsilon=2.5, bisections=6, protocol=protocol)  # more than 1: a distance
    result = attack(spec, PLANE, pixels)
    assert result.images.dtype == np.float32
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    assert (result.l2 <= result.epsilon * (1 + 1e-6)).all()
    assert result.linf.max() > 0.1


# ---- minimal


@pytest.mark.parametrize("epsilon", [1.5, 0.01], ids=["shrinks", "grows"])
def test_minimal_finds_the_closed_form_of_a_linear_classifier(epsilon: float) -> None:
    pixels = samples(20)
    smallest = (PLANE.margin(pixels).abs() / WEIGHT.norm()).numpy()
    assert smallest.max() / smallest.min() > 5  # each sample has a radius of its own
    result = attack(PGD(epsilon=epsilon, **STILL), PLANE, pixels)
    assert result.claimed.all()
    np.testing.assert_allclose(result.l2, smallest, rtol=1e-3)
    np.testing.assert_allclose(result.mse, smallest**2 / SIZE, rtol=2e-3)


def test_minimal_from_random_starts_comes_near_the_closed_form_and_never_below() -> None:
    pixels = samples(10)
    smallest = (PLANE.margin(pixels).abs() / WEIGHT.norm()).numpy()
    result = attack(PGD(norm="l2", epsilon=0.1, steps=120, bisections=8), PLANE, pixels)
    assert result.claimed.all()
    assert (result.l2 >= smallest * (1 - 1e-4)).all()
    assert (result.l2 <= smallest * 1.05).all()


# ---- the oracle


def test_budget_ends_where_foolbox_ends() -> None:
    from foolbox.attacks import L2PGD
    from foolbox.models.pytorch import PyTorchModel

    model, pixels = Bent(), samples(20)
    oracle = L2PGD(rel_stepsize=0.01 / 0.3, steps=40, random_start=False)
    wrapped = PyTorchModel(model.eval(), bounds=(0, 1), device="cpu")
    labels = predictions(model, pixels)
    _, theirs, success = oracle(wrapped, pixels, labels, epsilons=0.1)
    spec = PGD(protocol="budget", epsilon=0.1, step_ratio=0.01 / 0.3, **STILL)
    ours = attack(spec, model, pixels)
    assert 0.1 < success.float().mean() < 0.9  # the comparison is not of saturated rates
    np.testing.assert_array_equal(ours.claimed, success.numpy())
    np.testing.assert_allclose(ours.images, theirs.numpy(), atol=1e-5)


# ---- every combination


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_the_same_examples_for_any_batch_size_and_order(combination: dict[str, Any]) -> None:
    spec = PGD(epsilon=RADIUS[combination["norm"]], steps=6, bisections=2, **combination)
    assert_any_batch_gives_the_same(spec, Bent(), samples(19))


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_a_nan_gradient_is_a_failure_of_its_own_row_alone(combination: dict[str, Any]) -> None:
    parameters = {"steps": 6, "bisections": 2, "random_start": False, **combination}
    spec = PGD(epsilon=RADIUS[combination["norm"]], **parameters)
    pixels, bad = samples(19), [2, 17]
    pixels[bad, 0, 0, 0] = 1.0
    rest = [row for row in range(19) if row not in bad]
    model = BadGradient(Bent())
    result = attack(spec, model, pixels)
    alone = attack_rows(spec, model, pixels, rest, 64)
    assert sorted(result.failures) == bad
    assert all(
        line.startswith("the network's gradient is NaN") for line in result.failures.values()
    )
    assert not result.claimed[bad].any()
    np.testing.assert_array_equal(result.images[bad], pixels[bad].numpy())
    assert np.isnan(result.epsilon[bad]).all()
    for name, expected in alone.items():
        np.testing.assert_array_equal(getattr(result, name)[rest], expected, err_msg=name)


def test_a_start_that_fooled_does_not_save_a_row_whose_gradient_is_nan() -> None:
    plane = Plane(WEIGHT.clone(), 0.0)
    plane.weight[0] = 0
    pixels = samples(8)
    pixels[:, 0, 0, 0] = 1.0
    plane.bias = 0.01 - float(plane.margin(pixels[:1]))
    pixels = pixels[:1].repeat(8, 1, 1, 1)  # a start is as likely on the one side as on the other
    spec = PGD(protocol="budget", epsilon=0.04, steps=2)
    assert attack(spec, plane, pixels).claimed.any()
    result = attack(spec, BadGradient(plane), pixels)
    assert sorted(result.failures) == list(range(8))
    assert not result.claimed.any()


def test_an_infinite_gradient_has_signs_but_no_direction_in_l2() -> None:
    pixels = samples(3)
    pixels[1, 0, 0, 0] = 1.0
    model = BadGradient(Bent(), math.inf)
    assert not attack(PGD(protocol="budget", steps=2), model, pixels).failures
    l2 = attack(PGD(protocol="budget", norm="l2", epsilon=0.1, steps=2), model, pixels)
    assert l2.failures == {1: "the network's gradient is NaN or infinite"}


# ---- the spec


def test_an_l2_epsilon_may_exceed_one_but_must_be_a_distance() -> None:
    assert PGD(norm="l2", epsilon=3.0).radius == 3
    for epsilon in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigurationError, match="out of range"):
            PGD(norm="l2", epsilon=epsilon)


def test_the_norm_is_part_of_the_fingerprint_and_of_the_stream() -> None:
    linf, l2 = (PGD(norm=norm, step_ratio=0.1).describe() for norm in ("linf", "l2"))
    assert l2 == {**linf, "norm": "l2"}
    assert PGD(norm="l2").stream != PGD().stream
