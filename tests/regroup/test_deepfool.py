"""DeepFool against closed forms, against Foolbox itself, and for any batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regroup.attacks.gradient.deepfool import DeepFool
from tests.regroup.foolbox_subjects import (
    MEASURES,
    Subject,
    affine,
    boundary_distances,
    cifar_subject,
    conv_subject,
    foolbox_model,
    in_batches,
    library,
    measure,
    random_pixels,
)

# DeepFool looks at a gradient a candidate: few of them keep the tests fast.
FEW = DeepFool(candidates=3, steps=10)


@pytest.fixture(scope="module")
def cifar(shared_data: Path) -> Subject:
    return cifar_subject(shared_data, 7)


@pytest.fixture(params=["conv", "cifar"])
def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param == "conv":
        return conv_subject(20)
    found: Subject = request.getfixturevalue("cifar")
    return found


@pytest.mark.parametrize("overshoot", [0.05, 0.5])
@pytest.mark.parametrize("classes", [2, 6])
def test_of_linear_logits_it_goes_straight_to_the_nearest_class(
    classes: int, overshoot: float
) -> None:
    model, pixels = affine(classes), random_pixels(20)
    distances = boundary_distances(model, pixels)
    result = Subject(model, pixels).attack(DeepFool(overshoot=overshoot))
    assert result.claimed.all()
    assert result.steps.tolist() == [1] * 20
    # The kernel adds 1e-4 to every step, for numerical stability.
    expected = (1 + overshoot) * (distances.amin(dim=1) + 1e-4)
    np.testing.assert_allclose(result.l2, expected.numpy(), rtol=1e-3)
    reached = model(torch.from_numpy(result.images)).argmax(dim=1)
    assert torch.equal(reached, distances.argmin(dim=1))


def test_passes_by_hand() -> None:
    # Check, ranking, a pass each for 5 of 6 classes, one that finds the success, one last look.
    result = Subject(affine(6), random_pixels(3)).attack(DeepFool())
    assert result.queries.tolist() == [1 + 1 + 5 + 1 + 1] * 3
    assert result.backward_passes.tolist() == [5 + 1] * 3


@pytest.mark.parametrize("spec", [FEW, DeepFool(candidates=3, steps=10, loss="logits")])
def test_as_far_and_as_often_as_foolbox(subject: Subject, spec: DeepFool) -> None:
    subject = subject.first(8)
    kernel = library().L2DeepFoolAttack(steps=10, candidates=3, overshoot=0.05, loss=spec.loss)
    images, _, success = kernel(
        foolbox_model(subject.model), subject.pixels, subject.labels, epsilons=None
    )
    result = subject.attack(spec)
    assert result.claimed.tolist() == success.tolist()
    assert result.claimed.sum() >= 6
    theirs = torch.linalg.vector_norm((images - subject.pixels).flatten(1), dim=1).numpy()
    np.testing.assert_allclose(result.l2[result.claimed], theirs[result.claimed], rtol=1e-3)


def test_the_same_examples_for_any_batch_size_and_order(subject: Subject) -> None:
    rows = list(range(len(subject.pixels)))
    whole = in_batches(FEW, subject, rows, 64)
    some = in_batches(FEW, subject, rows, 5)
    backwards = in_batches(FEW, subject, rows[::-1], 7)
    alone = in_batches(FEW, subject, rows[-1:], 1)
    for name in MEASURES:
        expected = measure(whole, name)
        np.testing.assert_array_equal(measure(some, name), expected, err_msg=name)
        np.testing.assert_array_equal(measure(backwards, name)[::-1], expected, err_msg=name)
        np.testing.assert_array_equal(measure(alone, name), expected[-1:], err_msg=name)


class Bent(nn.Module):
    """Class 1 beyond a mean of 0.6; far below it the slope does not show how far that is."""

    def forward(self, pixels: Tensor) -> Tensor:
        mean = pixels.mean(dim=(1, 2, 3))
        margin = (mean - 0.6) * (1 + 20 * torch.relu(0.3 - mean))
        return torch.stack((torch.zeros_like(margin), margin), dim=1)


def near_and_far() -> Subject:
    """Of the two samples the second needs more than one step."""
    return Subject(Bent(), torch.stack([torch.full((3, 4, 4), level) for level in (0.5, 0.1)]))


def test_waiting_for_a_slower_neighbour_is_not_counted() -> None:
    subject = near_and_far()
    together, alone = subject.attack(DeepFool()), subject.attack(DeepFool(), [0])
    assert together.steps[1] > together.steps[0] == 1
    assert together.queries[0] == alone.queries[0] == 5


def test_a_network_that_cannot_be_fooled_gives_the_clean_image() -> None:
    class Constant(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            nothing = 0 * pixels.mean(dim=(1, 2, 3))
            return torch.stack((nothing + 1, nothing), dim=1)

    subject = Subject(Constant(), random_pixels(3))
    result = subject.attack(DeepFool(steps=7))
    assert not result.claimed.any()
    assert result.failures == {}
    np.testing.assert_array_equal(result.images, subject.pixels.numpy())
    assert result.steps.tolist() == [7] * 3
    assert result.backward_passes.tolist() == [7] * 3


def test_running_out_of_steps_is_no_success_and_leaves_the_clean_image() -> None:
    subject = near_and_far()
    short, long = subject.attack(DeepFool(steps=1)), subject.attack(DeepFool())
    assert short.claimed.tolist() == [True, False]
    assert long.claimed.all()
    np.testing.assert_array_equal(short.images[1], subject.pixels[1].numpy())
    np.testing.assert_array_equal(short.images[0], long.images[0])
