"""HopSkipJump: closed forms, and Foolbox's estimator on more than one sample."""

from typing import Any

import numpy as np
import pytest
import torch

from regroup.attacks.decision.hop_skip_jump import HopSkipJump, estimated_gradient
from tests.regroup.foolbox_subjects import (
    MEASURES,
    SIZE,
    Subject,
    affine,
    boundary_distances,
    conv_subject,
    foolbox_model,
    library,
    random_pixels,
)
from tests.regroup.test_boundary import mostly_bright


@pytest.mark.parametrize(("norm", "order"), [("l2", 2.0), ("linf", torch.inf)])
def test_it_finds_the_closed_form_of_linear_logits(norm: Any, order: float) -> None:
    model, pixels = affine(2), random_pixels(16)
    result = Subject(model, pixels).attack(HopSkipJump(norm=norm, steps=10))
    nearest = boundary_distances(model, pixels, order).amin(dim=1).numpy()
    size = result.l2 if norm == "l2" else result.linf
    assert result.claimed.all()
    assert (size >= nearest * (1 - 1e-4) - 1e-6).all()
    assert np.median(size / nearest) < 1.1


def test_a_full_group_comes_as_close_as_a_sample_alone_unlike_foolbox() -> None:
    model, pixels = affine(2), random_pixels(16)
    subject = Subject(model, pixels)
    nearest = boundary_distances(model, pixels).amin(dim=1).numpy()
    spec = HopSkipJump(steps=4)
    together = subject.attack(spec).l2 / nearest
    alone = np.concatenate([subject.attack(spec, [row]).l2 for row in range(4)]) / nearest[:4]
    torch.manual_seed(0)
    images = library().HopSkipJumpAttack(steps=4).run(foolbox_model(model), pixels, subject.labels)
    theirs = torch.linalg.vector_norm((images - pixels).flatten(1), dim=1).numpy() / nearest
    assert np.median(together) < 1.5 * np.median(alone)
    assert np.median(together) < 0.8 * np.median(theirs)


@pytest.mark.parametrize("uniform", [False, True])
def test_the_estimate_points_along_the_gradient_whatever_the_neighbours(uniform: bool) -> None:
    weight = torch.randn((2, SIZE), generator=torch.Generator().manual_seed(0))
    at = torch.full((2, 3, 4, 4), 0.5)
    radius = torch.tensor([0.01, 0.1]).view(2, 1, 1, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = estimated_gradient(
            lambda images: ((images - 0.5).flatten(1) * weight).sum(dim=1) > 0,
            at,
            radius,
            2000,
            uniform,
        )
    assert torch.linalg.vector_norm(found.flatten(1), dim=1).tolist() == pytest.approx([1, 1])
    cosine = torch.cosine_similarity(found.flatten(1), weight, dim=1)
    assert (cosine > 0.95).all()


def test_the_same_decision_for_every_probe_gives_the_mean_direction() -> None:
    at = torch.full((1, 3, 4, 4), 0.5)
    probes = []

    def always(images: torch.Tensor) -> torch.Tensor:
        probes.append(images)
        return torch.ones(1, dtype=torch.bool)

    found = estimated_gradient(always, at, torch.full((1, 1, 1, 1), 0.01), 5, False)
    mean = (torch.stack(probes) - at).mean(dim=0)
    torch.testing.assert_close(found, mean / mean.norm(), rtol=1e-4, atol=1e-4)


def test_more_steps_never_keep_a_farther_image() -> None:
    subject = conv_subject(16)
    # One probe is a poor gradient: Foolbox's last iterate is farther than an earlier one at times.
    sizes = [subject.attack(HopSkipJump(steps=n, probes=1)).l2 for n in (1, 2, 4)]
    # With one seed the longer run repeats the shorter, and keeps the closest of its images.
    assert (np.diff(np.stack(sizes), axis=0) <= 0).all()


def test_samples_without_a_start_fail_alone_and_a_group_repeats_itself() -> None:
    spec = HopSkipJump(steps=2, probes=10, directions=20)
    first, second = mostly_bright().attack(spec), mostly_bright().attack(spec)
    assert first.claimed.tolist() == [True, False, True, False]
    assert first.steps.tolist() == [2, 0, 2, 0]
    for name in MEASURES:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
