"""What a kernel hands back, before anything is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from regroup.attacks.batch import AttackBatch


@dataclass(frozen=True)
class Found:
    """A row for each sample of the batch, on any device.

    images: (N, C, H, W) float32 in [0, 1]; where nothing was found: the clean image under
        `minimal`, the last iterate under `budget`.
    found: (N,) bool, the kernel's own claim; it is checked again on the stored bytes.
    epsilon: (N,) float64, radius of the ball that the image was found in; NaN where that means
        nothing.
    steps: (N,) int64, iterations that the sample took part in.
    queries: (N,) int64, forward passes of this sample; padding is not counted.
    backward: (N,) int64, backward passes of this sample.
    failures: row -> one line: the kernel itself failed there (a library's exception, NaN), which
        is no verdict about the network; such rows are stored as failed.
    """

    images: Tensor
    found: Tensor
    epsilon: Tensor
    steps: Tensor
    queries: Tensor
    backward: Tensor
    failures: Mapping[int, str] = field(default_factory=dict)


def nothing_found(batch: AttackBatch) -> Found:
    """Clean images, no claim, no cost."""
    zeros = torch.zeros_like(batch.labels)
    nan = torch.full(batch.labels.shape, torch.nan, dtype=torch.float64, device=zeros.device)
    return Found(batch.clean, zeros.bool(), nan, zeros, zeros, zeros)
