"""`run_attack`: check the input, attack, and judge the stored images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from regroup.attacks.gradients import Target
from regroup.attacks.minimal import minimal
from regroup.attacks.pgd import Found, budget
from regroup.attacks.result import AttackResult, distances

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from regroup.attacks.spec import AttackSpec

_KERNELS = {"budget": budget, "minimal": minimal}


def run_attack(
    spec: AttackSpec,
    model: nn.Module,
    pixels: Tensor | NDArray[np.float32],
    labels: Tensor | NDArray[np.integer],
    sample_ids: Sequence[str],
) -> AttackResult:
    """Attack correctly classified samples; the examples depend on no batch size and no order.

    model: pixels in [0, 1] to logits, in eval state; pixels: (N, C, H, W) float32 in [0, 1], on
    any device; labels: (N,); sample_ids: (N,), they key the random streams.
    Raises ValueError on pixels out of range and on misclassified samples, which are the caller's
    to leave out (`predictions` finds them); ConfigurationError on a model without gradients.
    """
    target = Target(model)
    clean = torch.as_tensor(pixels).to(target.device)
    true = torch.as_tensor(labels).to(target.device, torch.int64)
    _check(clean, true, sample_ids)
    if len(clean) == 0:
        return _result(clean, true, _nothing(clean, true), true)
    _check_correct(target.predictions(clean) == true, sample_ids)
    found = _KERNELS[spec.protocol](spec, target, clean, true, sample_ids)
    return _result(clean, true, found, target.predictions(found.images))


def _check(clean: Tensor, labels: Tensor, sample_ids: Sequence[str]) -> None:
    if clean.ndim != 4 or clean.dtype != torch.float32:
        raise ValueError(
            f"pixels must be (N, C, H, W) float32, not {tuple(clean.shape)} {clean.dtype}"
        )
    if not len(clean) == len(labels) == len(sample_ids):
        raise ValueError(
            f"{len(clean)} images, {len(labels)} labels and {len(sample_ids)} sample ids: "
            "give one of each for every sample"
        )
    if not bool(((clean >= 0) & (clean <= 1)).all()):
        raise ValueError("pixels must lie in [0, 1]; normalisation belongs to the model")


def _check_correct(correct: Tensor, sample_ids: Sequence[str]) -> None:
    wrong = [name for name, right in zip(sample_ids, correct.tolist(), strict=True) if not right]
    if wrong:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ValueError(f"only correctly classified samples are attacked; misclassified: {shown}")


def _nothing(clean: Tensor, labels: Tensor) -> Found:
    return Found(clean, labels.bool(), labels.double(), labels, labels)


def _result(clean: Tensor, labels: Tensor, found: Found, classes: Tensor) -> AttackResult:
    """Judge the images as they are stored; two more queries: the check before and this one."""
    images = found.images.cpu().numpy()
    success = found.found & (classes != labels)
    measured = distances(images, clean.cpu().numpy())
    return AttackResult(
        images=images,
        success=success.cpu().numpy(),
        adversarial_class=torch.where(success, classes, -1).cpu().numpy(),
        epsilon=found.epsilon.cpu().numpy(),
        l2=measured.l2,
        linf=measured.linf,
        mse=measured.mse,
        steps=found.steps.cpu().numpy(),
        queries=found.queries.cpu().numpy() + 2,
    )
