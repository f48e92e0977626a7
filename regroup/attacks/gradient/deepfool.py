"""DeepFool, L2: step to the nearest linearised class boundary until the class changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from regroup.attacks.libraries.foolbox import Kernel, check_no_epsilon, foolbox_attacks, run_foolbox
from regroup.attacks.spec import (
    AttackFacts,
    AttackSpec,
    Cost,
    Norm,
    Protocol,
    check_at_least,
    check_one_of,
    check_positive,
)

if TYPE_CHECKING:
    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.outcome import KernelOutcome

DeepFoolLoss = Literal["crossentropy", "logits"]


@dataclass(frozen=True, kw_only=True)
class DeepFool(AttackSpec):
    """DeepFool (Moosavi-Dezfooli et al. 2016), the paper's settings; Foolbox's kernel.

    It has no ball to stay in: only protocol "minimal", without an epsilon.

    Attributes:
        steps: maximum number of linearisations.
        candidates: how many classes of the largest logits are considered, including the true one;
            all if there are fewer.
        overshoot: how far beyond the boundary, as a share of the perturbation.
        loss: the difference of two classes' "crossentropy" or "logits"; equal in exact arithmetic.
    """

    name: ClassVar[str] = "deepfool"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="DeepFool",
        norms=("l2",),
        protocols=("minimal",),
        knowledge="white-box",
        source="Moosavi-Dezfooli et al. 2016",
        implementation="foolbox L2DeepFoolAttack",
    )

    norm: Norm = "l2"
    protocol: Protocol = "minimal"
    steps: int = 100
    candidates: int = 10
    overshoot: float = 0.05
    loss: DeepFoolLoss = "crossentropy"

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        check_no_epsilon(self)
        check_at_least(1, steps=self.steps)
        check_at_least(2, candidates=self.candidates)
        check_positive(overshoot=self.overshoot)
        check_one_of("loss of deepfool", self.loss, get_args(DeepFoolLoss))

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Run Foolbox's kernel on fixed batches: no sample influences another."""
        library = foolbox_attacks().L2DeepFoolAttack(
            steps=self.steps,
            candidates=self.candidates,
            overshoot=self.overshoot,
            loss=self.loss,
        )
        return run_foolbox(self, network, batch, Kernel(library.run))

    def cost(self) -> Cost:
        """Return one pass of either kind per candidate and step, one to rank, one last look."""
        passes = self.steps * (self.candidates - 1)
        return Cost(passes + 2, passes)
