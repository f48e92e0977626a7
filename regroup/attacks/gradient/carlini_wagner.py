"""Carlini and Wagner, L2: Adam on distance plus c times margin, with a binary search over c."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from regroup.attacks.libraries.foolbox import Kernel, check_no_epsilon, foolbox_attacks, run_foolbox
from regroup.attacks.spec import (
    AttackFacts,
    AttackSpec,
    Cost,
    Norm,
    Protocol,
    check_at_least,
    check_positive,
)

if TYPE_CHECKING:
    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.outcome import KernelOutcome


@dataclass(frozen=True, kw_only=True)
class CarliniWagner(AttackSpec):
    """Carlini & Wagner (2017), the paper's settings; Foolbox's kernel.

    It has no ball to stay in: only protocol "minimal", without an epsilon.

    Attributes:
        binary_searches: values of c tried, each with up to `steps` steps.
        steps: steps of Adam per c.
        step_size: of Adam in the space of arctanh.
        initial_const: the first c.
        kappa: by how much the logit of the wrong class (or the target) has to exceed the others.
        abort_early: end the steps at a c once a tenth of them has not decreased the loss. That is
            the loss summed over the group, so that samples end together: groups of 16.
    """

    name: ClassVar[str] = "carlini-wagner"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="Carlini & Wagner",
        norms=("l2",),
        protocols=("minimal",),
        knowledge="white-box",
        source="Carlini & Wagner 2017",
        implementation="foolbox L2CarliniWagnerAttack",
        targeted=True,
        group=16,
    )

    norm: Norm = "l2"
    protocol: Protocol = "minimal"
    binary_searches: int = 5
    steps: int = 1000
    step_size: float = 5e-3
    initial_const: float = 1e-2
    kappa: float = 0.0
    abort_early: bool = True

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        check_no_epsilon(self)
        check_at_least(1, binary_searches=self.binary_searches, steps=self.steps)
        check_at_least(0, kappa=self.kappa)
        check_positive(step_size=self.step_size, initial_const=self.initial_const)

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Run Foolbox's kernel on the group."""
        library = foolbox_attacks().L2CarliniWagnerAttack(
            binary_search_steps=self.binary_searches,
            steps=self.steps,
            stepsize=self.step_size,
            confidence=self.kappa,
            initial_const=self.initial_const,
            abort_early=self.abort_early,
        )
        outcome = run_foolbox(self, network, batch, Kernel(library.run, checks_all=True))
        return replace(outcome, steps=outcome.backward)

    def cost(self) -> Cost:
        """Return every step at every c, and one last look."""
        passes = self.binary_searches * self.steps
        return Cost(passes + 1, passes)
