"""AutoAttack, standard: APGD-CE, APGD-T, FAB-T and Square, each on what those before it left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from regroup.attacks.libraries.pyautoattack import (
    LIBRARY,
    LIBRARY_NORMS,
    library_module,
    run_sequentially,
)
from regroup.attacks.spec import AttackFacts, BallAttack, Cost, check_at_least
from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.libraries.pyautoattack import CountedNetwork, Kernel
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.outcome import KernelOutcome

# The targeted "difference of logits ratio" loss takes the four largest logits.
_FEWEST_CLASSES = 4
# Forward passes of the checks that come before the attacks.
_CHECKS = 7


@dataclass(frozen=True, kw_only=True)
class AutoAttack(BallAttack):
    """AutoAttack's standard version (Croce & Hein 2020), by its authors' own package.

    The package's own checks run on each group: whether the network is randomised, gives
    probabilities, or takes gradients itself; whether gradients are zero; and which samples Square
    alone breaks. Their remarks are the outcome's `flags`.

    Attributes:
        steps: iterations of each run of APGD and of FAB.
        target_classes: how many of the most likely wrong classes APGD-T and FAB-T aim at, one after
            another; all if the network has fewer.
        squares: iterations of Square.
    """

    name: ClassVar[str] = "autoattack"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="AutoAttack",
        norms=("linf", "l2"),
        protocols=("budget",),
        knowledge="white-box",
        source="Croce & Hein 2020",
        implementation=f"{LIBRARY} standard",
        group=16,
    )

    steps: int = 100
    target_classes: int = 9
    squares: int = 5000

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        check_at_least(
            1, steps=self.steps, target_classes=self.target_classes, squares=self.squares
        )

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Run the four kernels in turn on the complete group, which shares their random numbers.

        Raises:
            ConfigurationError: the network has fewer than four classes.
        """
        return run_sequentially(self, network, batch, self._kernels, checks=True)

    def _kernels(self, seen: CountedNetwork, seed: int) -> list[Kernel]:
        targets = self._targets(seen.look(seen.clean).shape[1])
        apgd, fab, square = (
            library_module("autopgd_base"),
            library_module("fab_pt"),
            library_module("square"),
        )
        norm, device = LIBRARY_NORMS[self.norm], seen.clean.device
        shared: dict[str, Any] = {"norm": norm, "eps": self.epsilon, "seed": seed, "device": device}
        steps: dict[str, Any] = {"n_iter": self.steps, **shared}
        aims: dict[str, Any] = {"n_target_classes": targets, **steps}
        return [
            apgd.APGDAttack(seen, logger=seen.logger, **steps).perturb,
            apgd.APGDAttack_targeted(seen, logger=seen.logger, **aims).perturb,
            fab.FABAttack_PT(seen, targeted=True, **aims).perturb,
            square.SquareAttack(
                seen, n_queries=self.squares, p_init=0.8, resc_schedule=False, **shared
            ).perturb,
        ]

    def _targets(self, classes: int) -> int:
        """Return how many wrong classes are aimed at."""
        if classes < _FEWEST_CLASSES:
            raise ConfigurationError(
                f"autoattack needs {_FEWEST_CLASSES} classes for its targeted loss, "
                f"the model has {classes}"
            )
        return min(self.target_classes, classes - 1)

    def cost(self) -> Cost:
        """Return the cost of a sample that no kernel breaks, with all requested target classes.

        First come the checks, and the classes are counted. Each kernel looks at the clean image
        first, and we look at its result; APGD also has a gradient at its start; each target is
        chosen by a look, FAB looks twice; and FAB looks after each step, and at the end. For
        Square, see its own cost.
        """
        apgd = self.steps + 1
        fab = 2 + 2 * self.steps + 1
        forward = _CHECKS + 1 + (2 + apgd) + (2 + self.target_classes * (1 + apgd))
        forward += (2 + self.target_classes * fab) + (self.squares + 4)
        backward = apgd + self.target_classes * (apgd + self.steps)
        return Cost(forward + 1, backward)
