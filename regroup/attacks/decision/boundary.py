"""The Boundary attack: a random walk along the decision boundary towards the image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from regroup.attacks.decision.starting_points import run_from_starts, starting_points
from regroup.attacks.libraries.foolbox import Kernel, check_no_epsilon, foolbox_attacks
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
    from torch import Tensor

    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.outcome import KernelOutcome


@dataclass(frozen=True, kw_only=True)
class Boundary(AttackSpec):
    """Boundary attack (Brendel et al. 2018), the paper's 500 iterations; Foolbox's kernel.

    It has no ball to stay in: only protocol "minimal", without an epsilon. Each sample has its own
    starting point (`starting_points`), but the samples of a group share the random directions of
    the walk.

    Attributes:
        steps: maximum number of iterations.
        spherical_step: relative size of the first steps along the sphere around the image.
        source_step: relative size of the first steps towards the image.
        step_adaptation: the factor by which both change.
        convergence: a source step below it ends a sample's walk.
        update_every: iterations between two checks of the share of steps that succeed, each of
            which costs one more query.
        directions: noise images tried for the starting point.
        blends: shares of noise tried for the starting point.
    """

    name: ClassVar[str] = "boundary"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="Boundary",
        norms=("l2",),
        protocols=("minimal",),
        knowledge="black-box, decisions",
        source="Brendel et al. 2018",
        implementation="foolbox BoundaryAttack",
        group=16,
    )

    norm: Norm = "l2"
    protocol: Protocol = "minimal"
    steps: int = 500
    spherical_step: float = 1e-2
    source_step: float = 1e-2
    step_adaptation: float = 1.5
    convergence: float = 1e-7
    update_every: int = 10
    directions: int = 1000
    blends: int = 50

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        check_no_epsilon(self)
        check_at_least(1, steps=self.steps, update_every=self.update_every)
        check_at_least(1, directions=self.directions, blends=self.blends)
        check_at_least(1, step_adaptation=self.step_adaptation)
        check_positive(spherical_step=self.spherical_step, source_step=self.source_step)
        check_at_least(0, convergence=self.convergence)

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Find a starting point for each sample, then run Foolbox's kernel on the group."""
        library = foolbox_attacks().BoundaryAttack(
            steps=self.steps,
            spherical_step=self.spherical_step,
            source_step=self.source_step,
            source_step_convergance=self.convergence,
            step_adaptation=self.step_adaptation,
            update_stats_every_k=self.update_every,
        )
        starts = starting_points(self, network, batch, self.directions, self.blends)
        kernel = Kernel(library.run, checks_all=True)
        outcome = run_from_starts(self, network, batch, kernel, starts)
        return replace(outcome, steps=self._iterations(outcome.steps))

    def _iterations(self, looks: Tensor) -> Tensor:
        """Convert looks to iterations: one look at the start, one per iteration and per update."""
        walked = (looks - 1).clamp(min=0)
        return walked - walked // (self.update_every + 1)

    def cost(self) -> Cost:
        """Return noise images and mixtures, a look at the start, the walk, and one last look."""
        start = self.directions + self.blends - 1
        return Cost(start + 1 + self.steps + self.steps // self.update_every + 1)
