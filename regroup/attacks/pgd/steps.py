"""Shared by both protocols of PGD: the objective of a step, and the random start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regroup.attacks.network import cross_entropy
from regroup.attacks.random_streams import start_in_ball

if TYPE_CHECKING:
    from collections.abc import Callable

    from regroup.attacks.pgd.spec import PGDSpec


def objective(
    spec: PGDSpec, labels: Tensor, targets: Tensor
) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """Return the function a step climbs, and the classes (N,) that it takes besides the logits."""
    return (_likelihood, targets) if spec.targeted else (cross_entropy, labels)


def _likelihood(logits: Tensor, targets: Tensor) -> Tensor:
    return -cross_entropy(logits, targets)


def start_noise(
    spec: PGDSpec, sample_id: str, attempt: int, epsilon: float, shape: tuple[int, ...]
) -> Tensor:
    """Return noise uniform in the ball of radius `epsilon` of the attack's norm: `shape` float32.

    All zeros if the attack has no random start.
    """
    if not spec.random_start:
        return torch.zeros(shape)
    return start_in_ball(spec, sample_id, attempt, epsilon, shape)
