"""The parameters of Auto-PGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from regroup.attacks.losses import Loss
from regroup.attacks.lp_balls import BALLS, Ball
from regroup.attacks.spec import AttackFacts, BallAttack, Cost, check_at_least, check_one_of
from regroup.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class APGDSpec(BallAttack):
    """Auto-PGD (Croce & Hein 2020), each run on the samples that those before left; `APGD` runs it.

    Of a defended network it climbs the surrogate's scores, and every iterate is put to what
    decides.

    Attributes:
        steps: gradient steps of a run.
        restarts: runs away from the label, or towards the target, each from a random point.
        target_classes: runs after these, each towards one of as many classes, the strongest on the
            clean image first.
        loss: what is climbed.
        surrogate: of a defended network, which of its surrogates; None: its first.
    """

    name: ClassVar[str] = "apgd"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="APGD",
        norms=("linf", "l2"),
        protocols=("budget",),
        knowledge="white-box",
        source="Croce & Hein 2020",
        targeted=True,
    )

    steps: int = 100
    restarts: int = 1
    target_classes: int = 0
    loss: Loss = "margin"
    surrogate: str | None = None

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        check_one_of("loss", self.loss, get_args(Loss))
        check_at_least(1, steps=self.steps)
        check_at_least(0, restarts=self.restarts, target_classes=self.target_classes)
        if self.restarts + self.target_classes == 0:
            raise ConfigurationError(
                "apgd has no run: give restarts of at least 1, or target_classes"
            )
        if self.targeted and self.target_classes:
            raise ConfigurationError(
                "a targeted apgd has its target: leave target_classes out, or targeted"
            )

    @property
    def ball(self) -> Ball:
        """The geometry of the norm."""
        return BALLS[self.norm]

    def cost(self) -> Cost:
        """Return every step of every run, and the look by which target classes are chosen."""
        passes = (self.restarts + self.target_classes) * (self.steps + 1)
        return Cost(passes + (self.target_classes > 0), passes)

    def describe(self) -> dict[str, object]:
        """Return all that determines the examples; a surrogate only where one is named."""
        described = super().describe()
        if self.surrogate is None:
            del described["surrogate"]
        return described
