"""PGD L-infinity, protocol `minimal`: the search for the smallest ball (DESIGN §7).

Follows Foolbox 2.3's RandomStartProjectedGradientDescentAttack with binary_search=True, which the
paper's authors used: grow the radius by 1.5 until a try succeeds, then halve the interval. A try
stops at its first success, which is looked for after each step. The random start is clipped to
the ball but not to [0, 1] before the first gradient, as there; every later iterate is in both.

Samples do not wait for each other: each is at its own try and step, so the batch stays full until
the last ones, and only the unfinished go through the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from regroup.attacks.attacked_network import cross_entropy
from regroup.attacks.criterion import Criterion
from regroup.attacks.found import Found
from regroup.attacks.pgd import project
from regroup.attacks.random_streams import start_noise

if TYPE_CHECKING:
    from torch import Tensor

    from regroup.attacks.attacked_network import AttackedNetwork
    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.pgd import PGD

GROWTH = 1.5


@dataclass
class EpsilonSearch:
    """The radius to try next for one sample: growth until a success, then bisection."""

    epsilon: float
    growth_limit: int
    bisections: int
    attempt: int = 0  # tries made so far
    bad: float = 0.0
    good: float = math.inf
    halvings: int = 0

    def advance(self, success: bool) -> bool:
        """Take in the outcome of the try at `epsilon`; whether there is another one to make."""
        self.attempt += 1
        if math.isinf(self.good) and not success:
            self.epsilon *= GROWTH
            return self.attempt < self.growth_limit
        self.halvings += math.isfinite(self.good)
        if success:
            self.good = self.epsilon
        else:
            self.bad = self.epsilon
        self.epsilon = (self.good + self.bad) / 2
        return self.halvings < self.bisections


class MinimalSearch:
    """The state of all samples of a batch; `run` steps them until every search has ended."""

    def __init__(self, spec: PGD, network: AttackedNetwork, batch: AttackBatch) -> None:
        self.spec, self.network, self.batch = spec, network, batch
        self.criterion = Criterion.of(spec)
        clean, labels = batch.clean, batch.labels
        self.searches = [
            EpsilonSearch(spec.radius, spec.growth_limit, spec.bisections) for _ in labels
        ]
        self.clean, self.x = clean, clean.clone()
        self.epsilon = clean.new_empty((len(clean), 1, 1, 1))
        self.step = torch.zeros_like(labels)  # within the current try
        self.steps, self.queries = torch.zeros_like(labels), torch.zeros_like(labels)
        self.best = clean.clone()
        self.best_mse = torch.full(
            labels.shape, torch.inf, dtype=torch.float64, device=clean.device
        )
        self.best_epsilon = torch.full_like(self.best_mse, torch.nan)

    def run(self) -> Found:
        """Every sample's smallest perturbation (mean squared), or the clean image."""
        active = torch.arange(len(self.batch), device=self.clean.device)
        for row in active.tolist():
            self._begin_try(row)
        while len(active):
            active = self._tick(active)
        found = self.best_mse.isfinite()
        # Every forward pass is followed by its backward pass, also the last of a try.
        return Found(
            self.best, found, self.best_epsilon, self.steps, self.queries, self.queries.clone()
        )

    def _begin_try(self, row: int) -> None:
        search = self.searches[row]
        name, shape = self.batch.sample_ids[row], self.clean.shape[1:]
        noise = start_noise(self.spec, name, search.attempt, search.epsilon, shape)
        self.x[row] = self.clean[row] + noise.to(self.clean)
        self.epsilon[row] = search.epsilon
        self.step[row] = 0

    def _tick(self, active: Tensor) -> Tensor:
        """One forward and backward pass of the active rows; those that remain active."""
        labels, targets = self.batch.labels[active], self.batch.targets[active]
        logits, gradient = self.network.gradient(self.x[active], cross_entropy, labels)
        self.queries[active] += 1
        step = self.step[active]
        # A start that already fools the network is not counted: Foolbox 2.3 looks after a step.
        success = self.criterion.met(logits, labels, targets) & (step > 0)
        self._keep_smaller(active[success])
        going = ~success & (step < self.spec.steps)
        self._take_step(active[going], gradient[going].sign())
        ended = self._next_tries(active[~going].tolist(), success[~going].tolist())
        return active[~torch.isin(active, active.new_tensor(ended))]

    def _keep_smaller(self, rows: Tensor) -> None:
        mse = (self.x[rows].double() - self.clean[rows]).square().mean(dim=(1, 2, 3))
        smaller = mse < self.best_mse[rows]
        rows = rows[smaller]
        self.best[rows], self.best_mse[rows] = self.x[rows], mse[smaller]
        self.best_epsilon[rows] = self.epsilon[rows].flatten().double()

    def _take_step(self, rows: Tensor, sign: Tensor) -> None:
        epsilon = self.epsilon[rows]
        stepped = self.x[rows] + self.spec.step_ratio * epsilon * sign
        self.x[rows] = project(stepped, self.clean[rows], epsilon)
        self.step[rows] += 1
        self.steps[rows] += 1

    def _next_tries(self, rows: list[int], success: list[bool]) -> list[int]:
        """Begin the next try of each row; the rows whose search has ended."""
        ended = []
        for row, succeeded in zip(rows, success, strict=True):
            if self.searches[row].advance(succeeded):
                self._begin_try(row)
            else:
                ended.append(row)
        return ended


def minimal(spec: PGD, network: AttackedNetwork, batch: AttackBatch) -> Found:
    """The smallest perturbation of each sample."""
    return MinimalSearch(spec, network, batch).run()
