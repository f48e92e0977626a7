"""Whether gradients can lead an attack: per sample, how many there were, and how many cannot.

A network that rounds, quantises or saturates gives gradients that are exactly zero, others give NaN
or infinity. An attack that follows them finds nothing, which says nothing about the network.

Every attack comes here through `AttackedNetwork`, which own kernels ask for gradients and through
which libraries differentiate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from regroup.attacks.batch import AttackBatch


@dataclass(frozen=True)
class GradientWatch:
    """The gradients of each sample of a batch, until an image of it first meets the criterion.

    Attributes:
        met: decides on success, from logits (n, M), labels (n,) and targets (n,): (n,) bool
            (`Criterion.met`).
        batch: the samples.
        finished: (N,) bool, whether an image of the sample has met the criterion.
        gradients: (N,) int64, gradients of a loss with respect to the image.
        zero: (N,) int64, those among them that are zero everywhere.
        not_finite: (N,) int64, those with NaN or infinity.
    """

    met: Callable[[Tensor, Tensor, Tensor], Tensor]
    batch: AttackBatch
    finished: Tensor = field(init=False)
    gradients: Tensor = field(init=False)
    zero: Tensor = field(init=False)
    not_finite: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        nothing = torch.zeros_like(self.batch.labels)
        object.__setattr__(self, "finished", nothing.bool())
        for name in ("gradients", "zero", "not_finite"):
            object.__setattr__(self, name, nothing.clone())

    def finish(self, rows: Tensor, logits: Tensor) -> None:
        """Note which of `rows` (n,) succeed by their logits (n, M)."""
        labels, targets = self.batch.labels[rows], self.batch.targets[rows]
        self.finished[rows] |= self.met(logits, labels, targets)

    def see(self, rows: Tensor, gradient: Tensor) -> None:
        """Count the gradients (n, C, H, W), or (n, K, C, H, W), of those of `rows` that go on."""
        # The largest magnitude is NaN if any value is.
        largest = torch.linalg.vector_norm(gradient.flatten(-3), torch.inf, dim=-1)
        largest = largest.view(len(rows), -1)
        going = ~self.finished[rows]
        self.gradients[rows] += going * largest.shape[1]
        self.zero[rows] += going * (largest == 0).sum(dim=1)
        self.not_finite[rows] += going * (~largest.isfinite()).sum(dim=1)
