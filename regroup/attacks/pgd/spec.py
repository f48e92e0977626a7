"""The parameters of projected gradient descent, L-infinity and L2, in both protocols."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from regroup.attacks.lp_balls import BALLS, Ball
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
from regroup.errors import ConfigurationError

GROWTH = 1.5
_GROWTH_LIMIT = 20
# Foolbox 2.3's step, in pixel units, and the epsilon that it divides it by unless one is given.
_FOOLBOX_STEP, _FOOLBOX_EPSILON = 0.01, 0.3
_MADRY_RATIO = 0.25  # Madry et al. 2018 on CIFAR-10: steps of 2/255 in a ball of 8/255.
# `cost` is an upper bound for images up to this size, which enters only by its logarithm.
_LARGEST_IMAGE = 3 * 1024 * 1024

Keep = Literal["mse", "linf"]


@dataclass(frozen=True, kw_only=True)
class PGDSpec(AttackSpec):
    """The parameters of projected gradient descent (Madry et al. 2018); `PGD` runs it.

    It climbs the cross-entropy of the true class; a targeted one descends the target's. If it is
    untargeted, any wrong class may win, with a confidence too.

    Attributes:
        epsilon: `budget`: radius of the ball; `minimal`: where the search for the smallest begins.
        steps: gradient steps in one ball.
        step_ratio: step size over epsilon; an L2 step is along the gradient, an L-infinity step
            along its signs. None, replaced by its number at once: 0.25 for `budget`; for `minimal`
            0.01 over the given epsilon, as Foolbox 2.3 has it, and 1/30 under L2, which it lacks.
        random_start: begin at a uniform point of the ball instead of the clean image.
        growth_limit: only for `minimal`: how many growing radii. None: 20, as Foolbox 2.3; with a
            confidence, which has no limit of epsilon (paper, Table 4), as many as it takes until
            the ball covers the box [0, 1].
        bisections: only for `minimal`: how many halvings.
        keep: only for `minimal`: of all successes the one with the smallest mean squared
            perturbation (Foolbox 2.3), or with the smallest L-infinity norm (the released demo).
    """

    name: ClassVar[str] = "pgd"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="PGD",
        norms=("linf", "l2"),
        protocols=("minimal", "budget"),
        knowledge="white-box",
        source="Madry et al. 2018",
        targeted=True,
        confidence=True,
    )

    norm: Norm = "linf"
    protocol: Protocol = "minimal"
    epsilon: float | None = 4 / 255
    steps: int = 40
    step_ratio: float | None = None
    random_start: bool = True
    growth_limit: int | None = None
    bisections: int = 20
    keep: Keep = "mse"

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        if self.epsilon is None:
            raise ConfigurationError("pgd needs an epsilon: the radius of its (first) ball")
        check_one_of("keep", self.keep, get_args(Keep))
        if self.step_ratio is None:
            object.__setattr__(self, "step_ratio", self._own_ratio())
        check_positive(step_ratio=self.ratio)
        limit = 1 if self.growth_limit is None else self.growth_limit
        check_at_least(1, steps=self.steps, growth_limit=limit)
        check_at_least(0, bisections=self.bisections)

    @property
    def radius(self) -> float:
        """`epsilon`, which PGD always has."""
        assert self.epsilon is not None
        return self.epsilon

    @property
    def ratio(self) -> float:
        """`step_ratio`, which is a number from the beginning."""
        assert self.step_ratio is not None
        return self.step_ratio

    def _own_ratio(self) -> float:
        """Return the step ratio of this protocol, norm and epsilon where none is given."""
        if self.protocol == "budget":
            return _MADRY_RATIO
        return _FOOLBOX_STEP / (self.radius if self.norm == "linf" else _FOOLBOX_EPSILON)

    def given(self) -> dict[str, object]:
        """Leave a step ratio out that follows from protocol, norm and epsilon."""
        given = super().given()
        if self.step_ratio == self._own_ratio():
            del given["step_ratio"]
        return given

    @property
    def ball(self) -> Ball:
        """The geometry of the norm."""
        return BALLS[self.norm]

    @property
    def tries(self) -> float:
        """How many growing radii `minimal` may try; inf: until the ball covers the box."""
        if self.growth_limit is not None:
            return self.growth_limit
        return _GROWTH_LIMIT if self.confidence is None else math.inf

    def largest_radius(self, size: int) -> float:
        """Return the radius at which `minimal` stops growing, for images of `size` values.

        Without a confidence the number of tries alone ends the growth, as in Foolbox 2.3.
        """
        return math.inf if self.confidence is None else self.ball.whole_box(size)

    def cost(self) -> Cost:
        """Return every step of every try; L2 without a limit: of images up to 1024 x 1024."""
        if self.protocol == "budget":
            return Cost(self.steps + 1, self.steps)
        passes = (self._most_tries() + self.bisections) * (self.steps + 1)
        return Cost(passes, passes)

    def _most_tries(self) -> int:
        if self.confidence is None:
            return int(self.tries)
        growth = self.largest_radius(_LARGEST_IMAGE) / self.radius
        enough = 1 + max(math.ceil(math.log(growth, GROWTH)), 0)  # the first try does not grow
        return int(min(self.tries, enough))

    def describe(self) -> dict[str, object]:
        """Return all that determines the examples; `budget` leaves out the search's parameters.

        `keep` stands there only where it is not the default, which it was before it existed.
        """
        described = super().describe()
        if self.protocol == "budget" or self.keep == "mse":
            del described["keep"]
        if self.protocol == "budget":
            del described["growth_limit"], described["bisections"]
        elif self.tries < math.inf:
            described["growth_limit"] = self.tries
        return described
