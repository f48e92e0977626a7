"""SPSA, L-infinity (Uesato, O'Donoghue, van den Oord, Kohli 2018): from the scores alone.

The gradient of the margin is estimated from two-sided differences along random sign directions and
given to Adam; every iterate is projected into the ball and [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from regroup.attacks.criterion import Criterion
from regroup.attacks.lp_balls import BALLS
from regroup.attacks.outcome import KernelOutcome
from regroup.attacks.random_streams import stream
from regroup.attacks.spec import AttackFacts, BallAttack, Cost, check_at_least, check_positive

if TYPE_CHECKING:
    from torch import Tensor

    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork

# The most images held at once, whatever the batch and the number of directions.
MAX_IMAGES = 128
_BETA_1, _BETA_2, _ADAM_EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, kw_only=True)
class SPSA(BallAttack):
    """Adam on an estimated gradient of the margin, until it is negative (Uesato et al. 2018).

    The margin is the true class's logit minus the largest other one; targeted: the largest other
    than the target's minus the target's. A sample's attack ends once the criterion is met.

    The first iterate is the clean image, as in the paper. Queried points leave the ball and [0, 1]
    by up to delta; iterates never do. Where an iterate's logits are not finite the sample fails.

    Attributes:
        steps: iterations.
        samples: random sign directions per iteration, two forward passes per direction.
        delta: how far along a direction the network is queried, in pixel units.
        learning_rate: Adam's (its other parameters are 0.9, 0.999, 1e-8), in pixel units.
    """

    name: ClassVar[str] = "spsa"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="SPSA",
        norms=("linf",),
        protocols=("budget",),
        knowledge="black-box, scores",
        source="Uesato et al. 2018",
        targeted=True,
    )

    steps: int = 300
    samples: int = 128
    delta: float = 0.01
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        check_at_least(1, steps=self.steps, samples=self.samples)
        check_positive(delta=self.delta, learning_rate=self.learning_rate)

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Descend until every sample is adversarial or has used up its steps."""
        return Descent(self, network, batch).run()

    def cost(self) -> Cost:
        """Return both sides of every direction, and a look at every iterate."""
        return Cost(self.steps * (2 * self.samples + 1))


class Descent:
    """The state of all samples of a batch, including Adam's; `run` steps them until they end."""

    def __init__(self, spec: SPSA, network: AttackedNetwork, batch: AttackBatch) -> None:
        self.spec, self.network, self.batch = spec, network, batch
        self.epsilon = batch.clean.new_full((len(batch), 1, 1, 1), spec.radius)
        self.criterion = Criterion.of(spec)
        self.images = max(MAX_IMAGES, network.fixed_rows)
        self.x = batch.clean.clone()
        self.mean, self.square = torch.zeros_like(self.x), torch.zeros_like(self.x)
        self.found = torch.zeros_like(batch.labels, dtype=torch.bool)
        self.steps, self.queries = torch.zeros_like(batch.labels), torch.zeros_like(batch.labels)
        self.failures: dict[int, str] = {}

    def run(self) -> KernelOutcome:
        """Return every sample's first adversarial iterate, or its last one."""
        active = torch.arange(len(self.batch), device=self.x.device)
        together = max(1, self.images // (2 * self.spec.samples))
        for step in range(self.spec.steps):
            if not len(active):
                break
            groups = torch.split(active, together)
            gradient = torch.cat([self.estimate(rows, step) for rows in groups])
            active = self._look(self._step(active, gradient, step))
        epsilon = torch.full_like(self.queries, self.spec.radius, dtype=torch.float64)
        none = torch.zeros_like(self.queries)
        return KernelOutcome(
            self.x, self.found, epsilon, self.steps, self.queries, none, failures=self.failures
        )

    def estimate(self, rows: Tensor, step: int) -> Tensor:
        """Return (n, C, H, W): the mean over directions v of v (loss(x+dv) - loss(x-dv)) / 2d."""
        total = torch.zeros_like(self.x[rows])
        names = [self.batch.sample_ids[row] for row in rows.tolist()]
        drawn = [direction_bits(self.spec, name, step, self.x[0].numel()) for name in names]
        for first in range(0, self.spec.samples, self.images // 2):
            bits = [each[first : first + self.images // 2].to(self.x.device) for each in drawn]
            directions = [signs(each, self.x.shape[1:]) for each in bits]
            differences = self._differences(rows, directions)
            # One sample after the other: sums of a batch may depend on its size.
            parts = [
                (v * d.view(-1, 1, 1, 1)).sum(dim=0)
                for v, d in zip(directions, differences, strict=True)
            ]
            total = total + torch.stack(parts)
        self.queries[rows] += 2 * self.spec.samples
        return total / (2 * self.spec.delta * self.spec.samples)

    def _differences(self, rows: Tensor, directions: list[Tensor]) -> Tensor:
        """Return (n, S) float32: loss(x + dv) - loss(x - dv) along S directions per row."""
        delta, count = self.spec.delta, len(directions[0])
        pairs = [
            (x + delta * v, x - delta * v) for x, v in zip(self.x[rows], directions, strict=True)
        ]
        logits = self.network.logits(torch.cat([side for pair in pairs for side in pair]))
        each = rows.repeat_interleave(2 * count)
        loss = margin(logits, self.batch.labels[each], self.batch.targets[each])
        plus, minus = loss.view(len(rows), 2, count).unbind(dim=1)
        return (plus - minus).float()

    def _step(self, rows: Tensor, gradient: Tensor, step: int) -> Tensor:
        """Apply Adam's update to `rows`, projected; return those with a finite gradient."""
        finite = gradient.flatten(1).isfinite().all(dim=1)
        self._fail(rows[~finite])
        rows, gradient = rows[finite], gradient[finite]
        # No fused operations: they round the elements at the end of a batch differently.
        self.mean[rows] = _BETA_1 * self.mean[rows] + (1 - _BETA_1) * gradient
        self.square[rows] = _BETA_2 * self.square[rows] + (1 - _BETA_2) * gradient.square()
        mean = self.mean[rows] / (1 - _BETA_1 ** (step + 1))
        square = self.square[rows] / (1 - _BETA_2 ** (step + 1))
        moved = self.x[rows] - self.spec.learning_rate * (mean / (square.sqrt() + _ADAM_EPSILON))
        self.x[rows] = BALLS["linf"].project(moved, self.batch.clean[rows], self.epsilon[rows])
        self.steps[rows] += 1
        return rows

    def _look(self, rows: Tensor) -> Tensor:
        """Run one forward pass of `rows`' iterates; return those that are not adversarial yet."""
        if not len(rows):
            return rows
        logits = self.network.logits(self.x[rows])
        self.queries[rows] += 1
        finite = logits.isfinite().all(dim=1)
        self._fail(rows[~finite])
        found = self.criterion.met(logits, self.batch.labels[rows], self.batch.targets[rows])
        self.found[rows] = found
        return rows[finite & ~found]

    def _fail(self, rows: Tensor) -> None:
        for row in rows.tolist():
            steps = int(self.steps[row])
            self.failures[row] = f"the network's logits are not finite after {steps} steps"


def margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return (N,) float64, negative where adversarial.

    Without a target (-1): the label's logit minus the largest other one; with one: the largest
    other minus the target's.

    Args:
        logits: (N, M).
        labels: (N,) int64.
        targets: (N,) int64.
    """
    targeted = targets >= 0
    own = torch.where(targeted, targets, labels)[:, None]
    scores = logits.double()
    others = scores.scatter(1, own, -torch.inf).amax(dim=1)
    difference = scores.gather(1, own)[:, 0] - others
    return torch.where(targeted, -difference, difference)


def direction_bits(spec: SPSA, sample_id: str, step: int, size: int) -> Tensor:
    """Return (samples, ceil(size / 8)) uint8: the sample's directions in a step, a bit per sign."""
    width = math.ceil(size / 8)
    data = stream(spec, sample_id, step).bytes(spec.samples * width)
    return torch.from_numpy(np.frombuffer(data, np.uint8).reshape(-1, width).copy())


def signs(bits: Tensor, shape: torch.Size) -> Tensor:
    """Return (S, *shape) float32, -1 for a 0 and 1 for a 1.

    Args:
        bits: (S, B) uint8, lowest bit first.
        shape: of one direction.
    """
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    ones = (bits[:, :, None] >> places) & 1
    return ones.flatten(1)[:, : math.prod(shape)].view(-1, *shape).float() * 2 - 1
