"""PGD, protocol `minimal`: the search for the smallest ball.

Follows Foolbox 2.3's RandomStartProjectedGradientDescentAttack with binary_search=True, which the
paper's authors used: grow the radius by 1.5 until a try succeeds, then halve the interval. A try
stops at its first success, which is checked after each step. The random start is clipped to the
ball but not to [0, 1] before the first gradient, as there; every later iterate is in both.

Samples do not wait for each other: each is at its own try and step, so the batch stays full until
the last ones, and only the unfinished go through the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from regroup.attacks.criterion import Criterion
from regroup.attacks.outcome import KernelOutcome
from regroup.attacks.pgd.spec import GROWTH
from regroup.attacks.pgd.steps import objective, start_noise

if TYPE_CHECKING:
    from torch import Tensor

    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.pgd.spec import PGDSpec

_PIXELS = (1, 2, 3)


@dataclass
class EpsilonSearch:
    """The radius to try next for one sample: growth until a success, then bisection.

    Attributes:
        epsilon: the radius to try.
        growth_limit: how many radii are tried before the search ends without success.
        bisections: halvings of the interval after the first success.
        largest: no radius beyond it is tried.
        attempt: tries made so far.
        bad: the largest radius known to fail.
        good: the smallest radius known to succeed.
        halvings: made so far.
    """

    epsilon: float
    growth_limit: float
    bisections: int
    largest: float = math.inf
    attempt: int = 0
    bad: float = 0.0
    good: float = math.inf
    halvings: int = 0

    def advance(self, success: bool) -> bool:
        """Record the outcome of the try at `epsilon`; return whether there is another to make."""
        self.attempt += 1
        if math.isinf(self.good) and not success:
            exhausted = self.epsilon >= self.largest or self.attempt >= self.growth_limit
            self.epsilon = min(self.epsilon * GROWTH, self.largest)
            return not exhausted
        self.halvings += math.isfinite(self.good)
        if success:
            self.good = self.epsilon
        else:
            self.bad = self.epsilon
        self.epsilon = (self.good + self.bad) / 2
        return self.halvings < self.bisections


class MinimalSearch:
    """The state of all samples of a batch; `run` steps them until every search has ended."""

    def __init__(self, spec: PGDSpec, network: AttackedNetwork, batch: AttackBatch) -> None:
        self.spec, self.network, self.batch = spec, network, batch
        self.criterion = Criterion.of(spec)
        clean, labels = batch.clean, batch.labels
        largest = spec.largest_radius(math.prod(clean.shape[1:]))
        self.searches = [
            EpsilonSearch(spec.radius, spec.tries, spec.bisections, largest) for _ in labels
        ]
        self.clean, self.x = clean, clean.clone()
        self.epsilon = clean.new_empty((len(clean), 1, 1, 1))
        self.step = torch.zeros_like(labels)  # within the current try
        self.steps, self.queries = torch.zeros_like(labels), torch.zeros_like(labels)
        self.best = clean.clone()
        self.best_size = torch.full(
            labels.shape, torch.inf, dtype=torch.float64, device=clean.device
        )
        self.best_epsilon = torch.full_like(self.best_size, torch.nan)
        self.failures: dict[int, str] = {}

    def run(self) -> KernelOutcome:
        """Return every sample's smallest perturbation (see `keep`), or the clean image."""
        active = torch.arange(len(self.batch), device=self.clean.device)
        for row in active.tolist():
            self._begin_try(row)
        size = self.network.fixed_rows
        while len(active):
            rows, waiting = active[:size], active[size:]
            # Round robin: the network's batches stay full as long as enough searches continue.
            active = torch.cat((waiting, self._tick(rows)))
        found = self.best_size.isfinite()
        # Every forward pass is followed by its backward pass, also the last of a try.
        passes = self.queries
        return KernelOutcome(
            self.best, found, self.best_epsilon, self.steps, passes, passes.clone(), self.failures
        )

    def _begin_try(self, row: int) -> None:
        search = self.searches[row]
        name, shape = self.batch.sample_ids[row], self.clean.shape[1:]
        noise = start_noise(self.spec, name, search.attempt, search.epsilon, shape)
        self.x[row] = self.clean[row] + noise.to(self.clean)
        self.epsilon[row] = search.epsilon
        self.step[row] = 0

    def _tick(self, rows: Tensor) -> Tensor:
        """Run one forward and backward pass of a batch; return the rows whose search continues."""
        state = (self.x, self.clean, self.epsilon, self.batch.labels, self.batch.targets)
        ((count, (x, clean, epsilon, labels, targets)),) = self.network.batches(
            *(tensor[rows] for tensor in state)
        )
        network = self.network.of(rows)
        logits, gradient = network.gradient(x, *objective(self.spec, labels, targets))
        self.queries[rows] += 1
        step = self.step[rows]
        # A start that already fools the network is not counted: Foolbox 2.3 looks after a step.
        success = self.criterion.met(logits, labels, targets)[:count] & (step > 0)
        self._keep_smaller(rows, success, x, clean)
        size = self.spec.ratio * epsilon
        stepped, usable = self.spec.ball.step(x, clean, gradient, size, epsilon)
        going = ~success & (step < self.spec.steps)
        failed = going & ~usable[:count]
        going &= usable[:count]
        self._move(rows[going], stepped[:count][going])
        others = ~going & ~failed
        ended = self._next_tries(rows[others].tolist(), success[others].tolist())
        ended += self._fail(rows[failed])
        return rows[~torch.isin(rows, rows.new_tensor(ended))] if ended else rows

    def _keep_smaller(self, rows: Tensor, success: Tensor, x: Tensor, clean: Tensor) -> None:
        """Keep smaller successes; x and clean with padding: a mean's bits may differ with N."""
        if not success.any():
            return
        difference = x.double() - clean
        linf = self.spec.keep == "linf"
        sizes = difference.abs().amax(dim=_PIXELS) if linf else difference.square().mean(_PIXELS)
        size = sizes[: len(rows)]
        smaller = success & (size < self.best_size[rows])
        rows = rows[smaller]
        self.best[rows], self.best_size[rows] = self.x[rows], size[smaller]
        self.best_epsilon[rows] = self.epsilon[rows].flatten().double()

    def _move(self, rows: Tensor, stepped: Tensor) -> None:
        self.x[rows] = stepped
        self.step[rows] += 1
        self.steps[rows] += 1

    def _next_tries(self, rows: list[int], success: list[bool]) -> list[int]:
        """Begin the next try of each row; return the rows whose search has ended."""
        ended = []
        for row, succeeded in zip(rows, success, strict=True):
            if self.searches[row].advance(succeeded):
                self._begin_try(row)
            else:
                ended.append(row)
        return ended

    def _fail(self, rows: Tensor) -> list[int]:
        """Record no verdict for these rows, whatever an earlier try of theirs found."""
        self.best[rows] = self.clean[rows]
        self.best_size[rows], self.best_epsilon[rows] = torch.inf, torch.nan
        failed: list[int] = rows.tolist()
        self.failures.update(dict.fromkeys(failed, self.spec.ball.failure))
        return failed


def run_minimal(spec: PGDSpec, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
    """Find the smallest perturbation of each sample."""
    return MinimalSearch(spec, network, batch).run()
