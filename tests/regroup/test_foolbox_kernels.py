"""What the adapter passes to a kernel of Foolbox, and which of its images it keeps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from regroup.attacks import AttackSpec
from regroup.attacks.batch import AttackBatch
from regroup.attacks.decision.boundary import Boundary
from regroup.attacks.decision.hop_skip_jump import HopSkipJump
from regroup.attacks.gradient.carlini_wagner import CarliniWagner
from regroup.attacks.gradient.deepfool import DeepFool
from regroup.attacks.libraries.foolbox import Kernel, run_foolbox
from regroup.attacks.network import AttackedNetwork
from regroup.attacks.outcome import KernelOutcome
from regroup.attacks.random_streams import group_seed
from tests.regroup.foolbox_subjects import (
    SHAPE,
    Affine,
    Subject,
    affine,
    conv_subject,
    random_pixels,
)


def found_by(
    spec: AttackSpec, subject: Subject, run: Callable[..., Tensor], **how: Any
) -> KernelOutcome:
    count = len(subject.pixels)
    names, untargeted = tuple(subject.names), torch.full((count,), -1)
    batch = AttackBatch(subject.pixels, subject.labels, untargeted, names)
    return run_foolbox(spec, AttackedNetwork(subject.model), batch, Kernel(run, **how))


@pytest.mark.parametrize("count", [1, 7, 20])
def test_a_kernel_without_a_group_is_given_batches_of_one_size(count: int) -> None:
    sizes = []

    def run(model: Any, pixels: Tensor, criterion: Any) -> Tensor:
        sizes.append(len(pixels))
        return pixels

    found_by(DeepFool(), conv_subject(count), run)
    assert sizes == [16] * (-(-count // 16))
    sizes.clear()
    found_by(CarliniWagner(), conv_subject(count), run)
    assert sizes == [count]


def test_rows_of_what_each_sample_has_go_with_it() -> None:
    subject, seen = conv_subject(18), []

    def run(model: Any, pixels: Tensor, criterion: Any, each: Tensor, factor: int) -> Tensor:
        seen.extend((each * factor).tolist())
        return pixels

    each = {"each": torch.arange(18)}
    found_by(DeepFool(), subject, run, each=each, keywords={"factor": 2})
    assert seen == [*range(0, 32, 2), 32, 34, *[32] * 14]


def to_the_other_side(model: Affine, pixels: Tensor) -> Tensor:
    """Unit direction from each image (N, C, H, W) straight to the other of two classes."""
    with torch.no_grad():
        own = model(pixels).argmax(dim=1)
        away: Tensor = (model.weight[1 - own] - model.weight[own]).view(pixels.shape)
    length: Tensor = torch.linalg.vector_norm(away, dim=(1, 2, 3), keepdim=True)
    return away / length


@pytest.mark.parametrize("keeps", [False, True])
def test_the_closest_adversarial_image_can_be_kept(keeps: bool) -> None:
    model, clean = affine(2), torch.full((2, *SHAPE), 0.5)
    clean[:, 0, 0, 0] = 0.45
    subject, away = Subject(model, clean), to_the_other_side(model, clean)

    def run(model: Any, pixels: Tensor, criterion: Any) -> Tensor:
        for size in (0.001, 0.8, 0.4, 0.6):  # the first does not fool
            criterion(pixels + size * away, model(pixels + size * away))
        return pixels + 0.6 * away

    found = found_by(CarliniWagner(), subject, run, keeps_closest=keeps, checks_all=True)
    sizes = torch.linalg.vector_norm((found.images - clean).flatten(1), dim=1)
    torch.testing.assert_close(sizes, torch.full((2,), 0.4 if keeps else 0.6))
    assert found.found.all()
    assert found.queries.tolist() == [4 + 1] * 2


def test_images_out_of_bounds_are_brought_back() -> None:
    model, pixels = affine(2), random_pixels(16)
    away = to_the_other_side(model, pixels)
    found = found_by(DeepFool(), Subject(model, pixels), lambda model, pixels, _: pixels + 3 * away)
    assert found.found.all()
    assert found.images.min() == 0
    assert found.images.max() == 1


def test_the_seed_of_a_group_is_its_own() -> None:
    seed = group_seed(Boundary(), ("a", "b"))
    assert seed == group_seed(Boundary(steps=99), ("a", "b"))
    assert 0 <= seed < 2**63
    others = [
        group_seed(Boundary(), ("a", "c")),
        group_seed(Boundary(), ("ab",)),
        group_seed(Boundary(seed=1), ("a", "b")),
        group_seed(HopSkipJump(), ("a", "b")),
    ]
    assert len({seed, *others}) == 5


def test_images_with_nan_are_failures() -> None:
    def run(model: Any, pixels: Tensor, criterion: Any) -> Tensor:
        return torch.where(torch.arange(len(pixels)).view(-1, 1, 1, 1) == 1, torch.nan, pixels)

    subject = conv_subject(3)
    found = found_by(CarliniWagner(), subject, run)
    assert not found.images.isnan().any()
    assert not found.found.any()
    assert 1 in found.failures
