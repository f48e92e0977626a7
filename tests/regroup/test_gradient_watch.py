"""Gradients that cannot lead an attack are counted, sample by sample, for every attack."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regroup.attacks import AttackResult, AttackSpec, make_attack, predictions, run_attack
from regroup.attacks.batch import AttackBatch
from regroup.attacks.criterion import Criterion
from regroup.attacks.gradient_watch import GradientWatch
from regroup.attacks.network import AttackedNetwork, cross_entropy
from regroup.attacks.pgd.attack import PGD
from regroup.errors import ConfigurationError
from tests.regroup.attack_subjects import BadGradient, Bent, Plane, attack, names, samples

WEIGHT = torch.linspace(0.1, 2, 48) * (-1) ** torch.arange(48)


class Flat(torch.autograd.Function):
    """The identity, with a gradient of zeros."""

    @staticmethod
    def forward(_: Any, pixels: Tensor) -> Tensor:
        return pixels.clone()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient)


class Quantised(Bent):
    """Sixteen levels for each value."""

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward((pixels * 15).round() / 15)


class Steep(Bent):
    """A thousand times the logits: cross-entropy's gradient underflows in float32."""

    def forward(self, pixels: Tensor) -> Tensor:
        return 1000 * super().forward(pixels)


class Masked(Bent):
    """A step whose gradient is a function that gives zeros."""

    def forward(self, pixels: Tensor) -> Tensor:
        flat: Tensor = Flat.apply(pixels)
        return super().forward(flat)


class Distilled(Bent):
    """As defensive distillation leaves a network: trained at a temperature, used without it."""

    def forward(self, pixels: Tensor) -> Tensor:
        probability = torch.softmax(400 * super().forward(pixels), dim=1)
        return torch.log(probability.clamp_min(1e-30))


class Cut(Bent):
    """Its parameters have gradients; its input goes through whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_()

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward((255 * pixels).byte().float() / 255)


ATTACKS: dict[str, AttackSpec] = {
    "pgd budget": PGD(protocol="budget", epsilon=0.02, steps=5, random_start=False),
    "pgd budget l2": PGD(protocol="budget", norm="l2", epsilon=0.1, steps=5, random_start=False),
    "pgd minimal": PGD(epsilon=1e-3, steps=5, growth_limit=2, bisections=1),
    "pgd targeted": PGD(epsilon=1e-3, steps=5, growth_limit=2, bisections=1, targeted=True),
    "trust region": make_attack("trust-region", steps=5),
    "deepfool": make_attack("deepfool", steps=3),
    "carlini-wagner": make_attack("carlini-wagner", steps=5, binary_searches=2),
}


def counts(result: AttackResult) -> tuple[list[int], list[int], list[int]]:
    each = result.gradients, result.zero_gradients, result.not_finite_gradients
    seen, zero, infinite = (array.tolist() for array in each)
    return seen, zero, infinite


@pytest.mark.parametrize("name", ATTACKS)
def test_every_gradient_of_a_rounded_input_is_zero(name: str) -> None:
    result = attack(ATTACKS[name], Quantised(), samples(19))
    seen, zero, infinite = counts(result)
    assert min(seen) > 0
    assert zero == seen
    assert infinite == [0] * 19


@pytest.mark.parametrize("name", ATTACKS)
def test_no_gradient_of_an_ordinary_network_is(name: str) -> None:
    seen, zero, infinite = counts(attack(ATTACKS[name], Bent(), samples(19)))
    assert min(seen) > 0
    assert zero == infinite == [0] * 19


@pytest.mark.parametrize("network", [Steep, Masked, Distilled])
def test_other_ways_to_hide_a_gradient(network: type[nn.Module]) -> None:
    seen, zero, _ = counts(attack(ATTACKS["pgd budget"], network(), samples(19)))
    hidden = sum(z > 0 for z in zero)
    assert hidden > 0.1 * sum(s > 0 for s in seen)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_counted_for_its_samples_alone(name: str, value: float) -> None:
    pixels, bad = samples(19), [2, 17]
    pixels[bad, 0, 0, 0] = 1.0
    seen, zero, infinite = counts(attack(ATTACKS[name], BadGradient(Bent(), value), pixels))
    assert [row for row in range(19) if infinite[row]] == bad
    assert [row for row in range(19) if zero[row] and row not in bad] == []
    assert min(seen) > 0


def test_gradients_are_counted_until_the_first_success() -> None:
    """A step of L-infinity size s lowers the margin of a plane by s times its L1 norm."""
    plane, pixels = Plane(WEIGHT, 0.2), samples(20)
    spec = PGD(protocol="budget", epsilon=0.05, step_ratio=0.05, steps=20, random_start=False)
    result = attack(spec, plane, pixels)
    margin = plane.margin(pixels).abs() / WEIGHT.abs().sum()
    until = np.ceil(margin.numpy() / (0.05 * 0.05)).astype(int)
    assert (until < 20).any()
    assert counts(result)[0] == np.minimum(until, 20).tolist()


def test_a_sample_that_is_never_fooled_has_every_gradient_counted() -> None:
    seen, zero, _ = counts(attack(ATTACKS["pgd budget"], Masked(), samples(19)))
    assert set(zip(seen, zero, strict=True)) == {(5, 5)}


def test_attacks_without_gradients_have_none() -> None:
    for name, more in (("square", {"steps": 5}), ("boundary", {"steps": 3}), ("noise", {})):
        if name == "square":
            pytest.importorskip("pyautoattack")
        assert counts(attack(make_attack(name, **more), Quantised(), samples(4))) == ([0] * 4,) * 3


def test_an_input_that_is_cut_off_is_no_gradient_rather_than_an_error_of_torch() -> None:
    for name in ("pgd budget", "trust region"):
        with pytest.raises(ConfigurationError, match="gives no gradient with respect to its input"):
            attack(ATTACKS[name], Cut(), samples(3))


def watched(model: nn.Module) -> tuple[Tensor, AttackedNetwork, GradientWatch]:
    """Four samples, and the network as an attack on them has it."""
    pixels = samples(4)
    labels = predictions(model, pixels)
    batch = AttackBatch(pixels, labels, torch.full_like(labels, -1), tuple(names(4)))
    watch = GradientWatch(Criterion().met, batch)
    return pixels, AttackedNetwork(model, watch=watch), watch


def test_what_else_a_loss_is_made_of_is_no_gradient_of_the_network() -> None:
    """As the distance in Carlini and Wagner's."""
    pixels, network, watch = watched(Masked())
    moved = (pixels + 1e-4).requires_grad_()
    loss = network.differentiable(moved).sum() + (moved - pixels).square().sum()
    (gradient,) = torch.autograd.grad(loss, moved)
    assert (gradient != 0).all()
    assert watch.zero.tolist() == watch.gradients.tolist() == [1] * 4


def test_a_gradient_of_unnamed_samples_is_refused() -> None:
    """An attack that attributes no gradient to its samples does not pass for one without any."""
    pixels, network, watch = watched(Bent())
    labels = watch.batch.labels
    with pytest.raises(ValueError, match="2 images of 4 samples"):
        network.gradient(pixels[:2], cross_entropy, labels[:2])
    network.of(torch.tensor([3, 1])).gradient(pixels[[3, 1]], cross_entropy, labels[[3, 1]])
    assert watch.gradients.tolist() == [0, 1, 0, 1]


# ---- AutoAttack's package


def autoattack(model: nn.Module, squares: int = 30) -> AttackResult:
    pytest.importorskip("pyautoattack")
    spec = make_attack("autoattack", epsilon=0.01, steps=5, squares=squares, target_classes=2)
    pixels = samples(6)
    labels = predictions(model, pixels)
    return run_attack(spec, model, pixels, labels, names(6))


class Randomised(Bent):
    """Each pass has noise of its own."""

    def forward(self, pixels: Tensor) -> Tensor:
        logits = super().forward(pixels)
        return logits + 0.05 * torch.randn_like(logits)


class Probabilities(Bent):
    """Softmax is part of it."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.softmax(super().forward(pixels), dim=1)


class Purified(Bent):
    """Moves its input along a gradient first."""

    def forward(self, pixels: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = pixels.detach().requires_grad_()
            super().forward(leaf).max(dim=1).values.sum().backward()  # type: ignore[no-untyped-call]
        return super().forward(pixels + 1e-4 * torch.as_tensor(leaf.grad).sign())


@pytest.mark.parametrize(
    ("network", "remark"), [(Bent, 0), (Randomised, 1), (Probabilities, 2), (Purified, 4)]
)
def test_autoattacks_own_checks_are_heard(network: type[nn.Module], remark: int) -> None:
    flags = autoattack(network()).flags
    assert set((flags & 7).tolist()) == {remark}


def test_autoattack_remarks_on_zero_gradients_where_they_were() -> None:
    result = autoattack(Quantised())
    seen, zero, _ = counts(result)
    assert zero == seen
    assert max(seen) > 0
    np.testing.assert_array_equal(result.flags & 8 == 8, result.zero_gradients > 0)


def test_what_square_alone_breaks_is_remarked_on() -> None:
    result = autoattack(Masked(), squares=300)
    assert result.claimed.any()
    np.testing.assert_array_equal(result.flags & 16 == 16, result.claimed)
