"""APGD: the paper's checkpoints, closed forms of linear networks, the library as oracle."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regroup.attacks import predictions
from regroup.attacks.apgd.attack import APGD
from regroup.attacks.apgd.schedule import Climb, checkpoints
from regroup.attacks.losses import dlr_loss, likelihood_loss, margin_loss
from regroup.attacks.pgd.attack import PGD
from regroup.attacks.views import DefendedNetwork, Views
from regroup.errors import ConfigurationError
from tests.regroup.attack_subjects import (
    SHAPE,
    SIZE,
    BadGradient,
    Bent,
    Blocks,
    Plane,
    assert_any_batch_gives_the_same,
    attack,
    block_image,
    samples,
)

LABELS = torch.tensor([0, 2])
SCORES = torch.tensor([[4.0, 1.0, 3.0, 0.0], [5.0, 6.0, 2.0, 1.0]])
AWAY = torch.tensor([-1, -1])


# ---- losses


def test_the_margin_is_of_the_strongest_other_class_or_the_target() -> None:
    assert margin_loss(SCORES, LABELS, AWAY).tolist() == [-1.0, 4.0]
    assert margin_loss(SCORES, LABELS, torch.tensor([1, -1])).tolist() == [-3.0, 4.0]


def test_cross_entropy_is_the_labels_or_minus_the_targets() -> None:
    logs = torch.log_softmax(SCORES, 1)
    found = likelihood_loss(SCORES, LABELS, torch.tensor([-1, 1]))
    torch.testing.assert_close(found, torch.stack((-logs[0, 0], logs[1, 1])))


def test_dlr_is_the_margin_by_a_difference_of_logits() -> None:
    # Sorted (4, 3, 1, 0) and (6, 5, 2, 1): untargeted by first minus third.
    torch.testing.assert_close(dlr_loss(SCORES, LABELS, AWAY), torch.tensor([-1 / 3, 4 / 4]))
    aimed = dlr_loss(SCORES, LABELS, torch.tensor([1, 1]))
    torch.testing.assert_close(aimed, torch.tensor([-3 / 3.5, 4 / 4.5]))
    torch.testing.assert_close(
        dlr_loss(100 * SCORES + 7, LABELS, AWAY), dlr_loss(SCORES, LABELS, AWAY)
    )


# ---- steps


def test_checkpoints_of_a_hundred_steps() -> None:
    # Paper, section 3.1: intervals of 22, 19, 16, 13, 10, 7 and then 6 %.
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)


def progress(**changed: Any) -> Climb:
    x = torch.zeros(3, 1, 1, 1)
    state = Climb.begin(x, x + 1, torch.zeros(3), 0.5)
    for name, value in changed.items():
        setattr(state, name, torch.tensor(value))
    return state


def test_a_row_that_rose_too_seldom_halves_its_steps_and_goes_back() -> None:
    state = progress(rises=[7, 8, 7], best_loss=[2.0, 2.0, 2.0], loss=[1.0, 1.0, 1.0])
    state.best = torch.full((3, 1, 1, 1), 9.0)
    state.judge(10)  # 75 % of ten steps are 7.5
    assert state.size.tolist() == [0.25, 0.5, 0.25]
    assert state.x.flatten().tolist() == [9.0, 0.0, 9.0]
    assert state.loss.tolist() == [2.0, 1.0, 2.0]
    assert state.rises.tolist() == [0, 0, 0]


def test_a_row_whose_best_stands_halves_unless_it_just_has() -> None:
    state = progress(rises=[10, 10, 10], halved=[False, True, False], best_loss=[0.0, 0.0, 1.0])
    state.judge(10)
    assert state.size.tolist() == [0.25, 0.5, 0.5]
    assert state.halved.tolist() == [True, False, False]


# ---- runs


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.02), ("l2", 0.1)])
@pytest.mark.parametrize("loss", ["margin", "cross-entropy"])
def test_a_linear_network_is_climbed_to_the_balls_top(norm: str, epsilon: float, loss: str) -> None:
    weight = torch.linspace(0.1, 2, SIZE) * (-1) ** torch.arange(SIZE)
    plane, clean = Plane(weight, -5.0), torch.full((1, *SHAPE), 0.5)  # class 0, out of reach
    spec = APGD(norm=norm, epsilon=epsilon, loss=loss, steps=60)  # type: ignore[arg-type]
    result = attack(spec, plane, clean)
    assert not result.claimed[0]
    step = weight.sign() if norm == "linf" else weight / weight.norm()
    top = (clean.flatten() + epsilon * step).view_as(clean)
    difference = plane.margin(top) - plane.margin(torch.from_numpy(result.images))
    assert abs(float(difference)) < 1e-3
    assert result.queries[0] == 1 + 61
    assert result.backward_passes[0] == 61


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.02), ("l2", 0.1)])
def test_examples_stay_in_the_ball_and_do_not_depend_on_the_batch(
    norm: str, epsilon: float
) -> None:
    spec = APGD(norm=norm, epsilon=epsilon, steps=12, restarts=2, target_classes=2)  # type: ignore[arg-type]
    pixels = samples(24)
    assert_any_batch_gives_the_same(spec, Bent(), pixels)
    result = attack(spec, Bent(), pixels)
    size = result.linf if norm == "linf" else result.l2
    assert (size <= epsilon * (1 + 1e-5)).all()
    assert 0 < result.claimed.sum() < len(pixels)


def test_a_sample_costs_nothing_after_its_success() -> None:
    near, far = block_image(0.50, 0.49, 0, 0), block_image(0.9, 0.1, 0, 0)
    spec = APGD(epsilon=0.05, steps=10, restarts=3)
    result = attack(spec, Blocks(), torch.cat((near, far)))
    assert result.claimed.tolist() == [True, False]
    assert result.steps.tolist()[0] <= 2
    assert result.backward_passes.tolist()[1] == 3 * 11


def test_a_target_is_the_only_success() -> None:
    image = block_image(0.50, 0.49, 0.46, 0)  # class 1 is nearer than class 2
    spec = APGD(epsilon=0.05, steps=20, targeted=True)
    result = attack(spec, Blocks(), image, targets=[2])
    assert result.claimed.all()
    assert predictions(Blocks(), torch.from_numpy(result.images)).tolist() == [2]


class Detour(nn.Module):
    """The margin of class 1 climbs to a hollow below zero; class 2 is won straight ahead."""

    def forward(self, pixels: Tensor) -> Tensor:
        first, second = pixels[:, 0, 0, 0] - 0.5, pixels[:, 1, 0, 0] - 0.5
        one = -0.01 - first.abs()  # strongest at the clean image, and never above class 0
        two = second - 0.05
        return torch.stack((torch.zeros_like(one), one, two), dim=1)


def test_a_class_that_the_strongest_hides_is_won_by_its_own_run() -> None:
    clean = torch.full((1, *SHAPE), 0.5)
    plain = APGD(epsilon=0.06, steps=20)
    assert not attack(plain, Detour(), clean).claimed.any()
    aimed = APGD(epsilon=0.06, steps=20, target_classes=2)
    assert attack(aimed, Detour(), clean).claimed.all()


def test_a_gradient_that_is_not_a_number_is_a_failure_and_no_verdict() -> None:
    pixels = torch.full((2, *SHAPE), 0.5)
    pixels[0, 0, 0, 0] = 1.0
    model = BadGradient(Bent(), float("nan"))
    result = attack(APGD(epsilon=0.01, steps=5), model, pixels)
    assert list(result.failures) == [0]
    assert "gradient is NaN" in result.failures[0]
    assert np.array_equal(result.images[0], pixels[0].numpy())


class Stubborn(DefendedNetwork):
    """Decides by pixel 0 alone; its surrogate follows the sum of all."""

    surrogates: ClassVar[tuple[str, ...]] = ("sum",)

    def forward(self, pixels: Tensor) -> Tensor:
        won = (pixels[:, 0, 0, 0] > 0.55).float()
        return torch.stack((1 - won, won), dim=1)

    def views(self, pixels: Tensor, surrogate: str) -> Views:
        assert surrogate == "sum"
        total = pixels.flatten(1).sum(dim=1)
        scores = torch.stack((torch.zeros_like(total), total), dim=1)
        return Views(self(pixels.detach()), scores, scores)


def test_a_defended_network_is_climbed_by_its_surrogate_and_judged_by_its_decision() -> None:
    clean = torch.full((1, *SHAPE), 0.5)
    short = attack(APGD(epsilon=0.04, steps=5), Stubborn(), clean)
    assert not short.claimed.any()  # the surrogate's class 1 leads everywhere
    assert short.zero_gradients.sum() == 0
    assert attack(APGD(epsilon=0.06, steps=5), Stubborn(), clean).claimed.all()


class Closed(Stubborn):
    surrogates: ClassVar[tuple[str, ...]] = ()


def test_a_defense_without_a_gradient_cannot_be_climbed() -> None:
    clean = torch.full((1, *SHAPE), 0.5)
    with pytest.raises(ConfigurationError, match="gives no gradient"):
        attack(APGD(epsilon=0.06, steps=5), Closed(), clean)


@pytest.mark.parametrize(
    ("model", "said"),
    [(Stubborn(), "choose from sum"), (Blocks(), "the network has none"), (Closed(), "has none")],
)
def test_a_surrogate_that_is_not_there_is_refused(model: nn.Module, said: str) -> None:
    clean = torch.full((1, *SHAPE), 0.5)
    with pytest.raises(ConfigurationError, match=f"no surrogate 'some' to follow: .*{said}"):
        attack(APGD(epsilon=0.06, steps=5, surrogate="some"), model, clean)


def test_a_confidence_of_scores_that_are_no_logits_is_refused() -> None:
    clean = torch.full((1, *SHAPE), 0.5)
    with pytest.raises(ConfigurationError, match="the scores of a defense are none"):
        attack(PGD(epsilon=0.06, confidence=0.9), Stubborn(), clean)


# ---- the library


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_it_fools_no_fewer_than_the_authors_own(loss: str) -> None:
    library = pytest.importorskip("pyautoattack.autopgd_base", reason="needs pyautoattack")
    model, epsilon, pixels = Bent(), 0.03, samples(32)
    labels = predictions(model, pixels)
    theirs = library.APGDAttack(
        model, n_iter=30, norm="Linf", eps=epsilon, loss=loss, seed=0, device="cpu"
    ).perturb(pixels, labels)
    expected = int((predictions(model, theirs) != labels).sum())
    own: Any = {"ce": "cross-entropy", "dlr": "dlr"}[loss]
    found = attack(APGD(epsilon=epsilon, steps=30, loss=own), model, pixels).claimed.sum()
    assert 0 < expected < len(labels)
    assert int(found) >= expected - 1


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"epsilon": None}, "needs an epsilon"),
        ({"steps": 0}, "steps is 0"),
        ({"restarts": 0}, "apgd has no run: give restarts"),
        ({"restarts": -1, "target_classes": 3}, "restarts is -1"),
        ({"targeted": True, "target_classes": 3}, "leave target_classes out"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"confidence": 0.9}, "does not support a confidence"),
    ],
)
def test_parameters_out_of_range(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        APGD(**parameters)


def test_the_stated_cost_is_what_a_sample_takes_at_most() -> None:
    spec = APGD(epsilon=1e-6, steps=10, restarts=2, target_classes=3)
    assert (spec.cost().forward, spec.cost().backward) == (5 * 11 + 1, 5 * 11)
    result = attack(spec, Blocks(), block_image(0.9, 0.1, 0, 0))
    assert result.queries[0] == 1 + spec.cost().forward  # and the look that comes before an attack
    assert result.backward_passes[0] == spec.cost().backward
