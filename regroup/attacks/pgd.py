"""Projected gradient descent, L-infinity and L2, in both protocols (DESIGN §7)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from regroup.attacks.attacked_network import cross_entropy
from regroup.attacks.balls import BALLS, Ball
from regroup.attacks.criterion import Criterion
from regroup.attacks.found import Found
from regroup.attacks.random_streams import start_noise
from regroup.attacks.spec import AttackFacts, AttackSpec, Cost, Norm, Protocol, at_least, positive
from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from regroup.attacks.attacked_network import AttackedNetwork
    from regroup.attacks.batch import AttackBatch

GROWTH = 1.5
_GROWTH_LIMIT = 20
# `cost` knows no image: the largest for which it is the most. It enters by its logarithm alone.
_LARGEST_IMAGE = 3 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class PGD(AttackSpec):
    """Projected gradient descent (Madry et al. 2018).

    It climbs the cross-entropy of the true class; a targeted one descends the target's. Which class
    wins when it is untargeted is left open, with a confidence too.

    epsilon: `budget`: radius of the ball; `minimal`: where the search for the smallest begins.
    steps: gradient steps in one ball. step_ratio: step size over epsilon; an L2 step is along the
        gradient, an L-infinity step along its signs.
    random_start: begin at a uniform point of the ball instead of the clean image.
    growth_limit, bisections: of "minimal" alone: how many growing radii, how many halvings.
        growth_limit None: 20, as Foolbox 2.3; with a confidence, which has no limit of epsilon
        (paper, Table 4), as many as it takes until the ball holds the whole box [0, 1].
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
    step_ratio: float = 0.01 / 0.3
    random_start: bool = True
    growth_limit: int | None = None
    bisections: int = 20

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        if self.epsilon is None:
            raise ConfigurationError("pgd needs an epsilon: the radius of its (first) ball")
        positive(step_ratio=self.step_ratio)
        limit = 1 if self.growth_limit is None else self.growth_limit
        at_least(1, steps=self.steps, growth_limit=limit)
        at_least(0, bisections=self.bisections)

    @property
    def radius(self) -> float:
        """`epsilon`, which PGD always has."""
        assert self.epsilon is not None
        return self.epsilon

    @property
    def ball(self) -> Ball:
        """The geometry of the norm."""
        return BALLS[self.norm]

    @property
    def tries(self) -> float:
        """How many growing radii `minimal` may try; inf: until the ball holds the whole box."""
        if self.growth_limit is not None:
            return self.growth_limit
        return _GROWTH_LIMIT if self.confidence is None else math.inf

    def largest_radius(self, size: int) -> float:
        """The radius after which `minimal` grows no more, for images of `size` values.

        Without a confidence the number of tries alone ends the growth, as in Foolbox 2.3.
        """
        return math.inf if self.confidence is None else self.ball.whole_box(size)

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> Found:
        """Run the kernel of the protocol."""
        from regroup.attacks.minimal import minimal

        return (budget if self.protocol == "budget" else minimal)(self, network, batch)

    def cost(self) -> Cost:
        """Every step of every try; L2 without a limit: of images up to 1024 x 1024."""
        if self.protocol == "budget":
            return Cost(self.steps + 1, self.steps)
        passes = (self._most_tries() + self.bisections) * (self.steps + 1)
        return Cost(passes, passes)

    def _most_tries(self) -> int:
        if self.confidence is None:
            return int(self.tries)
        growth = self.largest_radius(_LARGEST_IMAGE) / self.radius
        enough = 1 + max(math.ceil(math.log(growth, GROWTH)), 0)  # the first try grows nothing
        return int(min(self.tries, enough))

    def describe(self) -> dict[str, object]:
        """All that determines the examples; `budget` leaves out the parameters of the search."""
        described = super().describe()
        if self.protocol == "budget":
            del described["growth_limit"], described["bisections"]
        elif self.tries < math.inf:
            described["growth_limit"] = self.tries
        return described


def objective(
    spec: PGD, labels: Tensor, targets: Tensor
) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """What a step climbs, and the classes (N,) that it takes beside the logits."""
    return (_likelihood, targets) if spec.targeted else (cross_entropy, labels)


def _likelihood(logits: Tensor, targets: Tensor) -> Tensor:
    return -cross_entropy(logits, targets)


def budget(spec: PGD, network: AttackedNetwork, batch: AttackBatch) -> Found:
    """`steps` full steps for every sample inside the ball of radius `epsilon`.

    Kept: a sample's last successful iterate, or the final one when no iterate was successful (any
    success in the ball counts).
    """
    clean, labels = batch.clean, batch.labels
    starts = [start_noise(spec, name, 0, spec.radius, clean.shape[1:]) for name in batch.sample_ids]
    x = (clean + torch.stack(starts).to(clean)).clamp(0, 1)
    parts = [
        [result[:count] for result in _full_steps(spec, network, *tensors)]
        for count, tensors in network.batches(clean, x, labels, batch.targets)
    ]
    kept, found, failed = (torch.cat(part) for part in zip(*parts, strict=True))
    steps = torch.full_like(labels, spec.steps)
    epsilon = clean.new_full(labels.shape, spec.radius).double()  # of the precision it was used in
    return Found(
        torch.where(_column(failed), clean, kept),
        found & ~failed,
        epsilon.masked_fill(failed, torch.nan),
        steps,
        steps + 1,
        steps,
        dict.fromkeys(failed.nonzero().flatten().tolist(), spec.ball.failure),
    )


def _full_steps(
    spec: PGD, network: AttackedNetwork, clean: Tensor, x: Tensor, labels: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One batch of the network's: images kept, (N,) whether they succeed, (N,) who failed."""
    criterion, (climbed, classes) = Criterion.of(spec), objective(spec, labels, targets)
    # A float32 product, as of the rows of `minimal`.
    size = float(spec.step_ratio * torch.tensor(spec.radius, dtype=clean.dtype))
    kept, found = x.clone(), torch.zeros_like(labels, dtype=torch.bool)
    failed = found.clone()
    for _ in range(spec.steps):
        logits, gradient = network.gradient(x, climbed, classes)
        _keep(criterion.met(logits, labels, targets), x, kept, found)
        x, usable = spec.ball.step(x, clean, gradient, size, spec.radius)
        failed |= ~usable
    _keep(criterion.met(network.logits(x), labels, targets), x, kept, found)
    return torch.where(_column(found), kept, x), found, failed


def _keep(success: Tensor, x: Tensor, kept: Tensor, found: Tensor) -> None:
    torch.where(_column(success), x, kept, out=kept)
    found |= success


def _column(flags: Tensor) -> Tensor:
    return flags.view(-1, 1, 1, 1)
