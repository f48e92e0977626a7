"""The input of a kernel: correctly classified samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AttackBatch:
    """Samples attacked together; they influence each other only as `AttackFacts.group` says.

    Attributes:
        clean: (N, C, H, W) float32 in [0, 1], on the network's device.
        labels: (N,) int64, the true classes, which the network predicts on `clean`.
        targets: (N,) int64, the class that a targeted attack aims at, -1 for an untargeted one.
        sample_ids: (N,), keys of the random streams.
    """

    clean: Tensor
    labels: Tensor
    targets: Tensor
    sample_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sample_ids)

    def rows(self, rows: list[int]) -> AttackBatch:
        """Return the samples at `rows`."""
        ids = tuple(self.sample_ids[row] for row in rows)
        return AttackBatch(self.clean[rows], self.labels[rows], self.targets[rows], ids)
