"""Projected gradient descent, L-infinity, protocol `budget` (Madry et al. 2018; DESIGN §7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regroup.attacks.random_streams import start_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regroup.attacks.gradients import Target
    from regroup.attacks.spec import AttackSpec


@dataclass(frozen=True)
class Found:
    """Of a kernel: images (N, C, H, W); found (N,) bool; epsilon, steps, queries (N,)."""

    images: Tensor
    found: Tensor
    epsilon: Tensor
    steps: Tensor
    queries: Tensor


def project(pixels: Tensor, clean: Tensor, epsilon: Tensor) -> Tensor:
    """Into the ball of radius `epsilon` (N, 1, 1, 1) around `clean`, then into [0, 1]."""
    return (clean + (pixels - clean).clamp(-epsilon, epsilon)).clamp(0, 1)


def budget(
    spec: AttackSpec, target: Target, clean: Tensor, labels: Tensor, sample_ids: Sequence[str]
) -> Found:
    """`steps` full steps for every sample inside the ball of radius `epsilon`.

    clean: (N, C, H, W) in [0, 1]; labels: (N,). Kept: a sample's last misclassified iterate, or
    the final one when no iterate was misclassified (any success in the ball counts).
    """
    epsilon = clean.new_full((len(clean), 1, 1, 1), spec.epsilon)
    starts = [start_noise(spec, name, 0, spec.epsilon, clean.shape[1:]) for name in sample_ids]
    x = (clean + torch.stack(starts).to(clean)).clamp(0, 1)
    kept, found = x, torch.zeros_like(labels, dtype=torch.bool)
    for _ in range(spec.steps):
        classes, sign = target.ascent(x, labels)
        kept, found = _keep(classes != labels, x, kept, found)
        x = project(x + spec.step_ratio * epsilon * sign, clean, epsilon)
    kept, found = _keep(target.predictions(x) != labels, x, kept, found)
    kept = torch.where(_column(found), kept, x)
    steps = torch.full_like(labels, spec.steps)
    return Found(kept, found, epsilon.flatten().double(), steps, steps + 1)


def _keep(wrong: Tensor, x: Tensor, kept: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(_column(wrong), x, kept), found | wrong


def _column(flags: Tensor) -> Tensor:
    return flags.view(-1, 1, 1, 1)
