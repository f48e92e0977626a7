"""Carlini & Wagner against closed forms and Foolbox itself, and Foolbox's behaviour on failure."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from regroup.attacks import run_attack
from regroup.attacks.gradient.carlini_wagner import CarliniWagner
from tests.regroup.foolbox_subjects import (
    MEASURES,
    SIZE,
    Affine,
    Subject,
    affine,
    boundary_distances,
    cifar_subject,
    conv_subject,
    foolbox_model,
    library,
    random_pixels,
)

QUICK = CarliniWagner(steps=40, binary_searches=3, step_size=0.02, initial_const=1.0)
# A quarter of the longest step of `CLOSE`: Adam moves each pixel by up to 0.01 / 2.
STEP = 0.01 / 2 * SIZE**0.5 / 4
CLOSE = CarliniWagner(steps=150, binary_searches=4, step_size=0.01, initial_const=0.3)


@pytest.fixture(scope="module")
def cifar(shared_data: Path) -> Subject:
    return cifar_subject(shared_data, 3)


def kernel(spec: CarliniWagner) -> Any:
    return library().L2CarliniWagnerAttack(
        binary_search_steps=spec.binary_searches,
        steps=spec.steps,
        stepsize=spec.step_size,
        confidence=spec.kappa,
        initial_const=spec.initial_const,
        abort_early=spec.abort_early,
    )


def l2(images: Tensor, clean: Tensor) -> Any:
    return torch.linalg.vector_norm((images - clean).flatten(1), dim=1).numpy()


def test_it_finds_the_closed_form_of_linear_logits() -> None:
    model, pixels = affine(4), random_pixels(12)
    result = Subject(model, pixels).attack(CLOSE)
    nearest = boundary_distances(model, pixels).amin(dim=1).numpy()
    assert result.claimed.all()
    assert (result.l2 >= nearest * (1 - 1e-5)).all()
    assert (result.l2 <= nearest * 1.05 + STEP).all()


def test_a_targeted_attack_finds_the_closed_form_of_its_target() -> None:
    model, pixels = affine(2), random_pixels(12)
    labels = Subject(model, pixels).labels
    spec = CarliniWagner(
        steps=150, binary_searches=4, step_size=0.01, initial_const=0.3, targeted=True
    )
    names = [f"s{i}" for i in range(12)]
    result = run_attack(spec, model, pixels, labels, names, 1 - labels)
    nearest = boundary_distances(model, pixels).amin(dim=1).numpy()
    assert result.claimed.all()
    assert (result.l2 >= nearest * (1 - 1e-5)).all()
    assert (result.l2 <= nearest * 1.05 + STEP).all()


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("which", ["conv", "cifar"])
def test_as_far_and_as_often_as_foolbox(
    which: str, targeted: bool, request: pytest.FixtureRequest
) -> None:
    from foolbox.criteria import Misclassification, TargetedMisclassification

    subject = conv_subject(8) if which == "conv" else request.getfixturevalue("cifar")
    spec = CarliniWagner(
        steps=20, binary_searches=2, step_size=0.02, initial_const=1.0, targeted=targeted
    )
    result = subject.attack(spec)
    goal = torch.from_numpy(result.target)
    assert (goal != subject.labels).all()
    criterion = TargetedMisclassification(goal) if targeted else Misclassification(subject.labels)
    images, _, success = kernel(spec)(
        foolbox_model(subject.model), subject.pixels, criterion, epsilons=None
    )
    assert result.claimed.tolist() == success.tolist()
    assert result.claimed.any()
    theirs = l2(images, subject.pixels)
    np.testing.assert_allclose(result.l2[result.claimed], theirs[result.claimed], rtol=1e-3)
    reached = subject.model(torch.from_numpy(result.images)).argmax(dim=1)
    expected = goal if targeted else reached
    assert torch.equal(reached[result.claimed], expected[result.claimed])


def test_kappa_is_the_margin_of_the_logits() -> None:
    subject = conv_subject(8)
    for kappa in (0.0, 0.3):
        spec = CarliniWagner(
            steps=60, binary_searches=3, step_size=0.05, initial_const=3.0, kappa=kappa
        )
        result = subject.attack(spec)
        assert result.claimed.all()
        with torch.no_grad():
            logits = subject.model(torch.from_numpy(result.images))
        true = logits.gather(1, subject.labels[:, None])[:, 0]
        margin = logits.amax(dim=1) - true
        assert (margin >= kappa - 1e-5).all()
    assert margin.median() < 0.5


# ---- failure


def far_from_everything() -> Subject:
    """Two classes; class 1, where black is, is out of reach of a few small steps."""
    model = Affine(torch.stack((torch.ones(SIZE), torch.zeros(SIZE))), torch.tensor([-5.0, 0.0]))
    return Subject(model, torch.full((3, 3, 4, 4), 0.5))


def test_a_failure_gives_the_clean_image_where_foolbox_gives_a_black_one() -> None:
    subject, spec = far_from_everything(), CarliniWagner(steps=3, binary_searches=1)
    images, _, success = kernel(spec)(
        foolbox_model(subject.model), subject.pixels, subject.labels, epsilons=None
    )
    assert not images.any()
    assert success.all()  # Foolbox even takes the black image for an adversarial one
    result = subject.attack(spec)
    assert not result.claimed.any()
    assert result.failures == {}
    np.testing.assert_array_equal(result.images, subject.pixels.numpy())


def test_a_failure_does_not_touch_its_neighbours() -> None:
    subject = far_from_everything()
    pixels = torch.cat((subject.pixels, torch.full((1, 3, 4, 4), 0.11)))
    spec = CarliniWagner(steps=10, binary_searches=2, step_size=0.02, initial_const=1.0)
    result = Subject(subject.model, pixels).attack(spec)
    assert result.claimed.tolist() == [False, False, False, True]
    # 48 * 0.11 - 5 = 0.28 down to 0, along the diagonal: 0.28 / sqrt(48).
    nearest = 0.28 / np.sqrt(48)
    assert nearest * (1 - 1e-5) <= result.l2[3] <= nearest * 1.5


# ---- the group


def test_foolbox_stops_on_the_loss_of_all_so_a_group_runs_together() -> None:
    subject = conv_subject(16)
    model = foolbox_model(subject.model)
    whole = kernel(QUICK).run(model, subject.pixels, subject.labels)
    alone = kernel(QUICK).run(model, subject.pixels[:1], subject.labels[:1])
    assert not torch.allclose(whole[0], alone[0], atol=1e-4)  # its neighbours matter
    assert CarliniWagner.facts.group == 16
    once, again = subject.attack(QUICK), subject.attack(QUICK)
    for name in MEASURES:
        np.testing.assert_array_equal(getattr(again, name), getattr(once, name), err_msg=name)
    assert len(set(once.queries.tolist())) == 1


def test_nothing_but_the_early_stop_couples_the_group() -> None:
    spec = CarliniWagner(
        steps=40, binary_searches=3, step_size=0.02, initial_const=1.0, abort_early=False
    )
    subject = conv_subject(16)
    whole = subject.attack(spec)
    for rows in ([3], [0, 1, 2, 3, 4, 5, 6]):
        np.testing.assert_array_equal(subject.attack(spec, rows).images, whole.images[rows])
    assert whole.queries.tolist() == [3 * 40 + 2] * 16
    assert whole.backward_passes.tolist() == whole.steps.tolist() == [3 * 40] * 16
