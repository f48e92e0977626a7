"""HopSkipJump: from the boundary, a step along a gradient estimated from decisions, and back.

Foolbox 3.3.4 scales its probes, and the estimated direction, to unit length over the complete
batch, not each sample: with N samples probes and steps are sqrt(N) times too short. It also holds
all probes in memory at once. So the estimator is ours (Chen et al. 2020, section III-C), the rest
Foolbox's. Its result is the last iterate, which may be farther than an earlier one: ours is the
closest adversarial image that it has queried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

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
    from collections.abc import Callable

    from torch import Tensor

    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.outcome import KernelOutcome

# Halvings that float32 pixels can resolve in a search along one line.
_HALVINGS = 30


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(AttackSpec):
    """HopSkipJump (Chen et al. 2020), L2 and L-infinity, Foolbox's settings and kernel.

    It has no ball to stay in: only protocol "minimal", without an epsilon. The samples of a group
    draw from one generator, and wait for each other.

    Attributes:
        steps: iterations.
        probes: decisions queried by the first estimate of a gradient; the t-th queries sqrt(t)
            times as many.
        max_probes: limit on the probes of one estimate.
        gamma: of the accuracy of the return to the boundary.
        directions: noise images tried for the starting point (`starting_points`).
        blends: shares of noise tried for the starting point.
    """

    name: ClassVar[str] = "hop-skip-jump"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="HopSkipJump",
        norms=("l2", "linf"),
        protocols=("minimal",),
        knowledge="black-box, decisions",
        source="Chen et al. 2020",
        implementation="foolbox HopSkipJumpAttack, own estimator",
        group=16,
    )

    norm: Norm = "l2"
    protocol: Protocol = "minimal"
    steps: int = 64
    probes: int = 100
    max_probes: int = 10_000
    gamma: float = 1.0
    directions: int = 1000
    blends: int = 50

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        check_no_epsilon(self)
        check_at_least(1, steps=self.steps, probes=self.probes, max_probes=self.max_probes)
        check_at_least(1, directions=self.directions, blends=self.blends)
        check_positive(gamma=self.gamma)

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Find a starting point for each sample, then run Foolbox's kernel on the group."""
        library = _with_own_estimator(foolbox_attacks().HopSkipJumpAttack)(
            steps=self.steps,
            initial_gradient_eval_steps=self.probes,
            max_gradient_eval_steps=self.max_probes,
            gamma=self.gamma,
            constraint=self.norm,
        )
        starts = starting_points(self, network, batch, self.directions, self.blends)
        kernel = Kernel(library.run, checks_all=True, keeps_closest=True)
        outcome = run_from_starts(self, network, batch, kernel, starts)
        begun = (outcome.steps > 0).to(outcome.steps)
        return replace(outcome, steps=begun * self.steps)

    def cost(self) -> Cost:
        """Return the cost with at most 30 halvings per line search: Foolbox has no limit."""
        probes = sum(
            int(min(self.probes * math.sqrt(step + 1), self.max_probes))
            for step in range(self.steps)
        )
        start = self.directions + self.blends - 1 + 2 + _HALVINGS
        return Cost(start + probes + self.steps * (2 * _HALVINGS + 2) + 1)


def _with_own_estimator(library: Any) -> Any:
    """Return Foolbox's HopSkipJumpAttack with `estimated_gradient`."""

    class OwnEstimator(library):  # type: ignore[misc]
        def approximate_gradients(
            self, is_adversarial: Callable[[Any], Any], x_advs: Any, steps: int, delta: Any
        ) -> Any:
            """Foolbox's step of this name, by `estimated_gradient`."""
            from eagerpy.astensor import astensor

            uniform = self.constraint == "linf"
            return astensor(
                estimated_gradient(
                    lambda images: is_adversarial(astensor(images)).raw,
                    x_advs.raw,
                    delta.raw.view(-1, 1, 1, 1),
                    steps,
                    uniform,
                )
            )

    return OwnEstimator


def estimated_gradient(
    decide: Callable[[Tensor], Tensor], at: Tensor, radius: Tensor, probes: int, uniform: bool
) -> Tensor:
    """Return unit directions (N, C, H, W) in which boundary images become more adversarial.

    The mean of the directions (after clipping to [0, 1]) weighted by +1 or -1, minus the mean of
    the weights; without subtraction if all weights are equal.

    Args:
        decide: images (N, C, H, W) to (N,) bool, adversarial.
        at: (N, C, H, W), on the boundary.
        radius: (N, 1, 1, 1), of the probes.
        probes: how many decisions per image.
        uniform: draw directions uniformly in a cube instead of normally; both are scaled to unit
            length.
    """
    weighted, plain = torch.zeros_like(at), torch.zeros_like(at)
    balance = torch.zeros_like(radius)
    for _ in range(probes):
        drawn = torch.rand_like(at) * 2 - 1 if uniform else torch.randn_like(at)
        probe = (at + radius * _unit(drawn)).clamp(0, 1)
        direction = (probe - at) / (radius + 1e-8)
        sign = decide(probe).to(at).view(-1, 1, 1, 1) * 2 - 1
        weighted += sign * direction
        plain += direction
        balance += sign / probes
    baseline = torch.where(balance.abs() > 1 - 1e-6, torch.zeros_like(balance), balance)
    return _unit(weighted - baseline * plain)


def _unit(vectors: Tensor) -> Tensor:
    """Scale each row (N, C, H, W) to length 1 (L2)."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=(1, 2, 3), keepdim=True)
    return vectors / (length + 1e-12)
