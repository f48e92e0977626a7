"""Square: random squares that lower the margin, from the network's scores alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from regroup.attacks.libraries.pyautoattack import (
    LIBRARY,
    LIBRARY_NORMS,
    library_module,
    run_sequentially,
)
from regroup.attacks.spec import AttackFacts, BallAttack, Cost, check_at_least, check_positive
from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.libraries.pyautoattack import CountedNetwork, Kernel
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.outcome import KernelOutcome


@dataclass(frozen=True, kw_only=True)
class Square(BallAttack):
    """Square (Andriushchenko et al. 2020), with the settings that AutoAttack gives it.

    Attributes:
        steps: maximum number of squares, one forward pass each; a sample's attack ends with its
            success.
        first_share: the first squares' share of the image; it is halved on the paper's schedule for
            10 000 squares, which AutoAttack does not compress into its 5000.
    """

    name: ClassVar[str] = "square"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="Square",
        norms=("linf", "l2"),
        protocols=("budget",),
        knowledge="black-box, scores",
        source="Andriushchenko et al. 2020",
        implementation=f"{LIBRARY} SquareAttack",
        group=16,
    )

    steps: int = 5000
    first_share: float = 0.8

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        check_at_least(1, steps=self.steps)
        check_positive(first_share=self.first_share)
        if self.first_share > 1:
            raise ConfigurationError(
                f"first_share is {self.first_share:g}: a square is at most the whole image"
            )

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Run the library's kernel on the complete group: all samples share a square's place."""
        outcome = run_sequentially(self, network, batch, self._kernels)
        return replace(outcome, steps=outcome.queries)

    def _kernels(self, seen: CountedNetwork, seed: int) -> list[Kernel]:
        kernel = library_module("square").SquareAttack(
            seen,
            norm=LIBRARY_NORMS[self.norm],
            n_queries=self.steps,
            eps=self.epsilon,
            p_init=self.first_share,
            seed=seed,
            device=seen.clean.device,
            resc_schedule=False,
        )
        return [kernel.perturb]

    def cost(self) -> Cost:
        """Return one pass per square, and five looks.

        These are at the clean image, the start, the kernel's result, and two of ours.
        """
        return Cost(self.steps + 5)
