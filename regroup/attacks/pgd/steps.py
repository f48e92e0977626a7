"""Shared by both protocols of PGD: the objective of a step, and the random start."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from regroup.attacks.network import cross_entropy
from regroup.attacks.random_streams import stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

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
    inside = _in_l2_ball if spec.norm == "l2" else _in_linf_ball
    return torch.from_numpy(inside(stream(spec, sample_id, attempt), epsilon, shape))


def _in_linf_ball(
    generator: np.random.Generator, epsilon: float, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = generator.random(shape, dtype=np.float32)
    return (2 * unit - 1) * np.float32(epsilon)


def _in_l2_ball(
    generator: np.random.Generator, epsilon: float, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Scale a normal vector; the share of the ball within a radius is its d-th power."""
    normal = generator.standard_normal(shape)
    radius = epsilon * generator.random() ** (1 / math.prod(shape))
    # Not np.linalg.norm: the bits of a BLAS dot product may differ with the number of threads.
    scaled = normal * (radius / np.sqrt(np.square(normal).sum()))
    return np.asarray(scaled, dtype=np.float32)
