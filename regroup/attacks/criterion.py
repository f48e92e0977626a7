"""When an attack has succeeded: the one definition for kernels and verification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from regroup.attacks.spec import AttackSpec


@dataclass(frozen=True)
class Criterion:
    """Misclassification, or classification as the target; with a confidence if one is required.

    Untargeted with confidence p: some wrong class is predicted with a softmax probability of at
    least p. Targeted: the target is.
    """

    targeted: bool = False
    confidence: float | None = None

    @classmethod
    def of(cls, spec: AttackSpec) -> Criterion:
        """Return the criterion of `spec`."""
        return cls(spec.targeted, spec.confidence)

    def met(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Return whether each row succeeds, (N,) bool. Ties go to the first class.

        NaN logits are no success: argmax would treat NaN as the largest.

        Args:
            logits: (N, M).
            labels: (N,) int64.
            targets: (N,) int64.
        """
        predicted = logits.argmax(dim=1)
        met = predicted == targets if self.targeted else predicted != labels
        met &= logits.isfinite().all(dim=1)
        if self.confidence is not None:
            probability = torch.softmax(logits.double(), dim=1).amax(dim=1)
            met &= probability >= self.confidence
        return met
