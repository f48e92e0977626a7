"""What an attack is: every parameter that decides the adversarial examples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from regroup.errors import ConfigurationError

AttackName = Literal["pgd"]
Norm = Literal["linf"]
Protocol = Literal["minimal", "budget"]

# Raised whenever a change to a kernel changes its examples: stored ones are then made anew.
KERNEL_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class AttackSpec:
    """An attack in pixel space, untargeted; the repr is the full list of parameters.

    epsilon: radius in pixel units, 0 < epsilon <= 1. `budget`: of the ball; `minimal`: where the
        search for the smallest radius begins.
    steps: gradient steps in one ball. step_ratio: step size over epsilon.
    random_start: begin at a uniform point of the ball instead of the clean image.
    protocol: "budget" (full steps in one ball) or "minimal" (smallest perturbation) - DESIGN §7.
    growth_limit, bisections: of "minimal" alone: how many growing radii, how many halvings.
    seed: with the sample id, of each sample's own random stream.
    targeted, confidence: must stay False and None until the attacks that use them exist.
    """

    name: AttackName = "pgd"
    norm: Norm = "linf"
    epsilon: float
    steps: int = 40
    step_ratio: float = 0.01 / 0.3
    random_start: bool = True
    protocol: Protocol = "minimal"
    growth_limit: int = 20
    bisections: int = 20
    seed: int = 0
    targeted: bool = False
    confidence: float | None = None

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        _one_of("attack", self.name, get_args(AttackName))
        _one_of(f"norm of {self.name}", self.norm, get_args(Norm))
        _one_of("protocol", self.protocol, get_args(Protocol))
        if not 0 < self.epsilon <= 1:
            raise ConfigurationError(
                f"epsilon {self.epsilon:g} is out of range: "
                "epsilon is in [0,1] pixel units: did you mean 4/255?"
            )
        if not self.step_ratio > 0:
            raise ConfigurationError(f"step_ratio is {self.step_ratio:g}: it must be positive")
        _at_least(1, steps=self.steps, growth_limit=self.growth_limit)
        _at_least(0, bisections=self.bisections)
        if self.targeted or self.confidence is not None:
            raise ConfigurationError(f"{self.name} is offered untargeted and without confidence")

    def describe(self) -> dict[str, object]:
        """All that determines the examples, as plain JSON for fingerprints.

        growth_limit and bisections do not influence `budget` and are left out there.
        """
        described = {**asdict(self), "kernel_version": KERNEL_VERSION}
        if self.protocol == "budget":
            del described["growth_limit"], described["bisections"]
        return described

    @property
    def stream(self) -> str:
        """The attack's part of the key of a sample's random stream."""
        return f"{self.name}-{self.norm}-{self.protocol}"


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigurationError(f"unknown {what} {value!r}: choose from {', '.join(known)}")


def _at_least(minimum: int, **parameters: int) -> None:
    for name, value in parameters.items():
        if value < minimum:
            raise ConfigurationError(f"{name} is {value}: give at least {minimum}")
