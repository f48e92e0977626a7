"""Projected gradient descent, L-infinity, in both protocols (DESIGN §7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from regroup.attacks.attacked_network import cross_entropy
from regroup.attacks.criterion import Criterion
from regroup.attacks.found import Found
from regroup.attacks.random_streams import start_noise
from regroup.attacks.spec import AttackFacts, AttackSpec, Cost, Norm, Protocol, at_least, positive
from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from regroup.attacks.attacked_network import AttackedNetwork
    from regroup.attacks.batch import AttackBatch


@dataclass(frozen=True, kw_only=True)
class PGD(AttackSpec):
    """Projected gradient descent (Madry et al. 2018).

    epsilon: `budget`: radius of the ball; `minimal`: where the search for the smallest begins.
    steps: gradient steps in one ball. step_ratio: step size over epsilon.
    random_start: begin at a uniform point of the ball instead of the clean image.
    growth_limit, bisections: of "minimal" alone: how many growing radii, how many halvings.
    """

    name: ClassVar[str] = "pgd"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="PGD",
        norms=("linf",),
        protocols=("minimal", "budget"),
        knowledge="white-box",
        source="Madry et al. 2018",
    )

    norm: Norm = "linf"
    protocol: Protocol = "minimal"
    epsilon: float | None = 4 / 255
    steps: int = 40
    step_ratio: float = 0.01 / 0.3
    random_start: bool = True
    growth_limit: int = 20
    bisections: int = 20

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        if self.epsilon is None:
            raise ConfigurationError("pgd needs an epsilon: the radius of its (first) ball")
        positive(step_ratio=self.step_ratio)
        at_least(1, steps=self.steps, growth_limit=self.growth_limit)
        at_least(0, bisections=self.bisections)

    @property
    def radius(self) -> float:
        """`epsilon`, which PGD always has."""
        assert self.epsilon is not None
        return self.epsilon

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> Found:
        """Run the kernel of the protocol."""
        from regroup.attacks.minimal import minimal

        return (budget if self.protocol == "budget" else minimal)(self, network, batch)

    def cost(self) -> Cost:
        """Every step of every try."""
        tries = 1 if self.protocol == "budget" else self.growth_limit + self.bisections
        return Cost(tries * (self.steps + 1), tries * self.steps)

    def describe(self) -> dict[str, object]:
        """All that determines the examples; `budget` leaves out the parameters of the search."""
        described = super().describe()
        if self.protocol == "budget":
            del described["growth_limit"], described["bisections"]
        return described


def project(pixels: Tensor, clean: Tensor, epsilon: Tensor) -> Tensor:
    """Into the ball of radius `epsilon` (N, 1, 1, 1) around `clean`, then into [0, 1]."""
    return (clean + (pixels - clean).clamp(-epsilon, epsilon)).clamp(0, 1)


def budget(spec: PGD, network: AttackedNetwork, batch: AttackBatch) -> Found:
    """`steps` full steps for every sample inside the ball of radius `epsilon`.

    Kept: a sample's last successful iterate, or the final one when no iterate was successful (any
    success in the ball counts).
    """
    clean, labels, criterion = batch.clean, batch.labels, Criterion.of(spec)
    epsilon = clean.new_full((len(clean), 1, 1, 1), spec.radius)
    starts = [start_noise(spec, name, 0, spec.radius, clean.shape[1:]) for name in batch.sample_ids]
    x = (clean + torch.stack(starts).to(clean)).clamp(0, 1)
    kept, found = x, torch.zeros_like(labels, dtype=torch.bool)
    for _ in range(spec.steps):
        logits, gradient = network.gradient(x, cross_entropy, labels)
        kept, found = _keep(criterion.met(logits, labels, batch.targets), x, kept, found)
        x = project(x + spec.step_ratio * epsilon * gradient.sign(), clean, epsilon)
    last = criterion.met(network.logits(x), labels, batch.targets)
    kept, found = _keep(last, x, kept, found)
    kept = torch.where(_column(found), kept, x)
    steps = torch.full_like(labels, spec.steps)
    return Found(kept, found, epsilon.flatten().double(), steps, steps + 1, steps)


def _keep(success: Tensor, x: Tensor, kept: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(_column(success), x, kept), found | success


def _column(flags: Tensor) -> Tensor:
    return flags.view(-1, 1, 1, 1)
