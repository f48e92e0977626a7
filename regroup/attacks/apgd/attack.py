"""Auto-PGD (Croce & Hein 2020): PGD that chooses its own steps, on losses of any scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regroup.attacks.apgd.run import run_apgd
from regroup.attacks.apgd.spec import APGDSpec

if TYPE_CHECKING:
    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.outcome import KernelOutcome


@dataclass(frozen=True, kw_only=True)
class APGD(APGDSpec):
    """Auto-PGD; see `APGDSpec` for its parameters."""

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Run all runs."""
        return run_apgd(self, network, batch)
