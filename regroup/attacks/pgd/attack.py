"""Projected gradient descent: the kernel of the protocol, run on a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regroup.attacks.pgd.budget import run_budget
from regroup.attacks.pgd.minimal import run_minimal
from regroup.attacks.pgd.spec import PGDSpec

if TYPE_CHECKING:
    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.outcome import KernelOutcome


@dataclass(frozen=True, kw_only=True)
class PGD(PGDSpec):
    """Projected gradient descent (Madry et al. 2018); see `PGDSpec` for its parameters."""

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Run the kernel of the protocol."""
        return (run_budget if self.protocol == "budget" else run_minimal)(self, network, batch)
