"""PGD towards a target, and until a softmax probability: closed forms, Foolbox as oracle."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regroup.attacks import AttackResult, predictions, verify
from regroup.attacks.pgd.attack import PGD
from regroup.attacks.pgd.minimal import EpsilonSearch
from regroup.errors import ConfigurationError
from tests.regroup.attack_subjects import (
    SHAPE,
    SIZE,
    Bent,
    Blocks,
    Plane,
    attack,
    block_image,
    samples,
)

# Label 0; class 1 is nearer than class 2, and class 3 is far away.
PIXELS = torch.cat([block_image(0.5, 0.44, 0.40, 0.3), block_image(0.56, 0.48, 0.42, 0.2)])
# Away from the label the gradient is that of its probability: it must not be 1 in float32.
MILD = Blocks(15.0)
WEIGHT = torch.linspace(0.1, 2, SIZE) * (-1) ** torch.arange(SIZE)
PLANE = Plane(WEIGHT, 0.2)
# A block's values move alike: an L2 distance is that of one value times the root of 2 blocks of 12.
ALIKE = {"linf": 1.0, "l2": math.sqrt(SIZE / 2)}
DUAL = {"linf": float(WEIGHT.abs().sum()), "l2": float(WEIGHT.norm())}


def size(result: AttackResult, norm: str) -> np.ndarray:
    return result.linf if norm == "linf" else result.l2


def probabilities(model: nn.Module, images: np.ndarray) -> Tensor:
    return torch.softmax(model(torch.from_numpy(images)).double(), dim=1)


# ---- towards a target


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("epsilon", [0.3, 0.003], ids=["shrinks", "grows"])
def test_minimal_finds_the_way_to_the_target(norm: Any, epsilon: float) -> None:
    spec = PGD(norm=norm, epsilon=epsilon * ALIKE[norm], targeted=True, random_start=False)
    result = attack(spec, Blocks(), PIXELS, targets=[2, 2])
    assert predictions(Blocks(), torch.from_numpy(result.images)).tolist() == [2, 2]
    np.testing.assert_allclose(size(result, norm), np.array([0.05, 0.07]) * ALIKE[norm], rtol=2e-3)
    assert result.claimed.all()
    assert result.target.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([2, 0], "the target of sample s1 is its own label 0: give another class"),
        ([4, 2], "the target of sample s0 is class 4: the model has classes 0 to 3"),
        ([2, -1], "the target of sample s1 is class -1"),
    ],
)
def test_an_invalid_target_is_refused(targets: list[int], message: str) -> None:
    spec = PGD(epsilon=0.3, targeted=True)
    with pytest.raises(ConfigurationError, match=message):
        attack(spec, Blocks(), PIXELS, targets=targets)
    with pytest.raises(ConfigurationError, match="untargeted here: give no targets"):
        attack(PGD(epsilon=0.3), Blocks(), PIXELS, targets=[2, 2])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_untargeted_takes_the_nearest_class(norm: Any) -> None:
    result = attack(PGD(norm=norm, epsilon=0.01, random_start=False), MILD, PIXELS)
    assert predictions(MILD, torch.from_numpy(result.images)).tolist() == [1, 1]
    np.testing.assert_allclose(size(result, norm), np.array([0.03, 0.04]) * ALIKE[norm], rtol=2e-3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_budget_claims_the_target_alone(norm: Any) -> None:
    def claimed(epsilon: float, **aim: Any) -> list[bool]:
        spec = PGD(norm=norm, protocol="budget", epsilon=epsilon * ALIKE[norm], steps=60, **aim)
        model, given = (Blocks(), [2, 2]) if aim else (MILD, None)
        return list(attack(spec, model, PIXELS, given).claimed)

    assert claimed(0.06, targeted=True) == [True, False]
    assert claimed(0.045, targeted=True) == [False, False]
    assert claimed(0.045) == [True, True]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_budget_towards_a_target_ends_where_foolbox_ends(norm: Any) -> None:
    from foolbox.attacks import L2PGD, LinfPGD
    from foolbox.criteria import TargetedMisclassification
    from foolbox.models.pytorch import PyTorchModel

    epsilon = {"linf": 0.06, "l2": 0.3}[norm]
    model, pixels = Bent(), samples(20)
    oracle = {"linf": LinfPGD, "l2": L2PGD}[norm](
        rel_stepsize=0.01 / 0.3, steps=40, random_start=False
    )
    targets = (predictions(model, pixels) + 1 + torch.arange(20) % 4) % 5
    wrapped = PyTorchModel(model.eval(), bounds=(0, 1), device="cpu")
    criterion = TargetedMisclassification(targets)
    _, theirs, success = oracle(wrapped, pixels, criterion, epsilons=epsilon)
    parameters: dict[str, Any] = {
        "protocol": "budget",
        "step_ratio": 0.01 / 0.3,
        "random_start": False,
    }
    spec = PGD(norm=norm, epsilon=epsilon, targeted=True, **parameters)
    ours = attack(spec, model, pixels, targets.tolist())
    assert 0.1 < success.float().mean() < 0.9  # the comparison is not of saturated rates
    np.testing.assert_array_equal(ours.claimed, success.numpy())
    np.testing.assert_allclose(ours.images, theirs.numpy(), atol=1e-5)


# ---- until a probability


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_probability_costs_its_logit_on_a_linear_classifier(norm: Any) -> None:
    pixels, found = samples(12), []
    for p in (None, 0.6, 0.9):
        spec = PGD(norm=norm, epsilon=0.02, confidence=p, random_start=False)
        result = attack(spec, PLANE, pixels)
        assert result.claimed.all()
        needed = 0.0 if p is None else math.log(p / (1 - p))
        expected = (PLANE.margin(pixels).abs() + needed) / DUAL[norm]
        # The box clips some values: then the way is longer than the closed form.
        np.testing.assert_array_less(expected * (1 - 1e-4), size(result, norm))
        if p in (None, 0.6):
            np.testing.assert_allclose(size(result, norm), expected, rtol=2e-3)
        found.append(size(result, norm))
    for smaller, larger in pairwise(found):
        assert (smaller < larger).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("protocol", ["minimal", "budget"])
@pytest.mark.parametrize("targeted", [False, True])
def test_what_is_claimed_has_the_probability(norm: Any, protocol: Any, targeted: bool) -> None:
    spec = PGD(
        norm=norm,
        protocol=protocol,
        epsilon=0.07 if norm == "linf" else 0.45,
        targeted=targeted,
        confidence=0.9,
        bisections=3,
    )
    model, pixels = Bent(), samples(20)
    labels = predictions(model, pixels)
    result = attack(spec, model, pixels)
    reached = probabilities(model, result.images).max(dim=1)
    wanted = reached.values >= 0.9
    wanted &= (
        reached.indices == torch.from_numpy(result.target)
        if targeted
        else (reached.indices != labels)
    )
    np.testing.assert_array_equal(result.claimed, wanted.numpy())
    judged = verify(spec, model, result.images, labels.numpy(), result.target)
    np.testing.assert_array_equal(judged.success, result.claimed)
    if protocol == "minimal":
        assert result.claimed.all()
        assert (reached.values < 0.99).any()  # it stops soon after 0.9
    else:
        assert 0 < result.claimed.mean() < 1


def test_the_tries_end_with_the_ball_that_holds_the_whole_box() -> None:
    class Fixed(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            nothing = 0 * pixels.sum(dim=(1, 2, 3))
            return torch.stack((nothing + 1, nothing), dim=1)

    def tries(**parameters: Any) -> float:
        result = attack(PGD(steps=3, confidence=0.9, **parameters), Fixed(), samples(2))
        assert not result.claimed.any()
        return float(result.steps[0]) / 3

    # 0.1, 0.15, 0.225, 0.3375, 0.50625, 0.759375, 1
    assert tries(epsilon=0.1) == 7
    assert tries(epsilon=1.0) == 1
    # sqrt(48) = 6.93: 2, 3, 4.5, 6.75, 6.93
    assert tries(epsilon=2.0, norm="l2") == 5
    assert tries(epsilon=9.0, norm="l2") == 1
    assert tries(epsilon=0.1, growth_limit=3) == 3
    assert tries(epsilon=0.1, growth_limit=30) == 7


def test_growth_stops_at_the_largest_radius_itself() -> None:
    search = EpsilonSearch(4.0, growth_limit=math.inf, bisections=2, largest=10.0)
    tried = []
    for _ in range(3):
        tried.append(search.epsilon)
        more = search.advance(False)
    assert tried == [4.0, 6.0, 9.0]
    assert more
    assert search.epsilon == 10
    assert not search.advance(False)


@pytest.mark.parametrize(("norm", "corner"), [("linf", 1.0), ("l2", math.sqrt(SIZE))])
def test_no_epsilon_is_too_large_for_a_confidence(norm: Any, corner: float) -> None:
    # From black, class 1 has a probability of 0.9 only where almost every value is 1.
    model = Plane(torch.full((SIZE,), 10.0), -10.0 * SIZE + 2.5)
    # 25 and more radii lie between the first and the corner: more than the 20 of plain `minimal`.
    aim: dict[str, Any] = {"targeted": True, "confidence": 0.9, "random_start": False}
    spec = PGD(norm=norm, epsilon=3e-5, bisections=3, **aim)
    result = attack(spec, model, torch.zeros(1, *SHAPE), targets=[1])
    assert result.claimed[0]
    assert corner * 0.95 < size(result, norm)[0] <= corner * (1 + 1e-6)
    assert result.epsilon[0] <= corner * (1 + 1e-6)


# ---- the spec


def test_what_describes_an_untargeted_linf_attack_is_what_it_always_was() -> None:
    always = {
        "name": "pgd",
        "norm": "linf",
        "protocol": "minimal",
        "epsilon": 4 / 255,
        "targeted": False,
        "confidence": None,
        "seed": 0,
        "steps": 40,
        "step_ratio": 0.01 / 0.3,
        "random_start": True,
        "growth_limit": 20,
        "bisections": 20,
        "kernel_version": 1,
    }
    before: dict[str, Any] = {"step_ratio": 1 / 30}  # every PGD's, until each protocol got its own
    assert PGD(**before).describe() == always
    assert type(PGD().describe()["growth_limit"]) is int
    budget = {k: v for k, v in always.items() if k not in ("growth_limit", "bisections")}
    assert PGD(protocol="budget", **before).describe() == {**budget, "protocol": "budget"}


def test_a_limit_of_growth_is_described_as_it_is_applied() -> None:
    assert PGD(growth_limit=20).describe() == PGD().describe()
    assert PGD(confidence=0.9).describe()["growth_limit"] is None
    assert PGD(confidence=0.9, growth_limit=20).describe()["growth_limit"] == 20


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("protocol", ["minimal", "budget"])
@pytest.mark.parametrize("p", [None, 0.9])
def test_the_cost_is_the_most_that_a_sample_takes(norm: Any, protocol: Any, p: Any) -> None:
    spec = PGD(norm=norm, protocol=protocol, confidence=p, epsilon=0.01, steps=3, bisections=4)
    cost, result = spec.cost(), attack(spec, PLANE, samples(16))
    assert (result.queries - 1 <= cost.forward).all()  # one is `run_attack`'s own
    assert (result.backward_passes <= cost.backward).all()
    assert cost.forward <= {"budget": 4, "minimal": (40 if norm == "l2" else 24) * 4}[protocol]
