"""The outcome of an attack's kernel, before it is measured and verified."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from torch import Tensor

    from regroup.attacks.batch import AttackBatch


@dataclass(frozen=True)
class KernelOutcome:
    """One row per sample of the batch, on any device.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1]; where nothing was found: the clean image under
            `minimal`, the last iterate under `budget`.
        found: (N,) bool, the kernel's own claim; it is verified on the stored bytes.
        epsilon: (N,) float64, radius of the ball that the image was found in; NaN where no ball
            applies.
        steps: (N,) int64, iterations that the sample took part in.
        queries: (N,) int64, forward passes of this sample; padding is not counted.
        backward: (N,) int64, backward passes of this sample.
        failures: row -> one-line reason why the kernel itself failed there (a library's exception,
            NaN). That is no verdict about the network; such rows are stored as failed.
        flags: (N,) int64, what the kernel's library remarks (`libraries.autoattack_checks.Remark`);
            None: nothing.
        member: (N,) int64, of an attack made of several the one that succeeded, -1 for none; None:
            it is a single one.
    """

    images: Tensor
    found: Tensor
    epsilon: Tensor
    steps: Tensor
    queries: Tensor
    backward: Tensor
    failures: Mapping[int, str] = field(default_factory=dict)
    flags: Tensor | None = None
    member: Tensor | None = None

    @classmethod
    def unsuccessful(cls, batch: AttackBatch) -> Self:
        """Return the outcome of samples that were not attacked: clean images, no claim, no cost."""
        zeros = torch.zeros_like(batch.labels)
        nan = torch.full(batch.labels.shape, torch.nan, dtype=torch.float64, device=zeros.device)
        return cls(batch.clean, zeros.bool(), nan, zeros, zeros, zeros)
