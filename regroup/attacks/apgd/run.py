"""The runs of APGD: each from a random start, on the samples that no run before it has fooled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regroup.attacks.apgd.schedule import Climb, checkpoints
from regroup.attacks.criterion import Criterion
from regroup.attacks.losses import loss_function
from regroup.attacks.outcome import KernelOutcome
from regroup.attacks.random_streams import start_in_ball

if TYPE_CHECKING:
    from regroup.attacks.apgd.spec import APGDSpec
    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork

# The first step, as a share of the radius; and how much of a step is new, the rest being momentum.
_FIRST_STEP, _NEW = 2.0, 0.75


def run_apgd(spec: APGDSpec, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
    """Attack all samples; one that is not fooled keeps its image of the largest loss of any run."""
    attack = _Runs(spec, replace(network, surrogate=spec.surrogate), batch)
    for attempt in range(spec.restarts):
        attack.run(attempt, batch.targets)
    if spec.target_classes:
        strongest = attack.strongest_others()
        for place in range(strongest.shape[1]):
            attack.run(spec.restarts + place, strongest[:, place])
    return attack.outcome()


class _Runs:
    """What all runs have found and cost, per sample (N,)."""

    def __init__(self, spec: APGDSpec, network: AttackedNetwork, batch: AttackBatch) -> None:
        self.spec, self.network, self.batch = spec, network, batch
        self.criterion = Criterion.of(spec)
        self.images = batch.clean.clone()
        self.best = torch.full_like(batch.labels, -torch.inf, dtype=batch.clean.dtype)
        self.found = torch.zeros_like(batch.labels, dtype=torch.bool)
        self.failed = self.found.clone()
        self.steps, self.queries, self.backward = (torch.zeros_like(batch.labels) for _ in range(3))

    def strongest_others(self) -> Tensor:
        """Return the wrong classes (N, K) by the decision on the clean images, largest first."""
        logits = self.network.logits(self.batch.clean)
        self.queries += 1
        logits = logits.scatter(1, self.batch.labels[:, None], -torch.inf)
        count = min(self.spec.target_classes, logits.shape[1] - 1)
        return logits.topk(count, dim=1).indices

    def run(self, attempt: int, aims: Tensor) -> None:
        """Run once on all who are left, towards `aims` (N,), -1 for away from the label."""
        left = (~self.found & ~self.failed).nonzero().flatten()
        if len(left):
            _Run(self, left, aims[left]).go(attempt)

    def keep(self, rows: Tensor, images: Tensor, losses: Tensor) -> None:
        """Keep the images of `rows` if their losses are larger than any before."""
        better = losses > self.best[rows]
        self.images[rows[better]] = images[better]
        self.best[rows[better]] = losses[better]

    def outcome(self) -> KernelOutcome:
        """Return what was found."""
        spec, failed = self.spec, self.failed
        self.images[failed] = self.batch.clean[failed]
        epsilon = torch.full_like(self.best, spec.radius).double()
        reasons = dict.fromkeys(failed.nonzero().flatten().tolist(), spec.ball.failure)
        return KernelOutcome(
            self.images,
            self.found & ~failed,
            epsilon.masked_fill(failed, torch.nan),
            self.steps,
            self.queries,
            self.backward,
            reasons,
        )


@dataclass
class _Run:
    """One run: the samples `rows` (n,) that it still has, and their `aims` (n,)."""

    runs: _Runs
    rows: Tensor
    aims: Tensor

    def go(self, attempt: int) -> None:
        """Step until all are fooled or the steps are used up."""
        spec = self.runs.spec
        x = self._start(attempt)
        progress = Climb.begin(x, *self._look(x), spec.radius * _FIRST_STEP)
        progress = self._without_the_fooled(progress)
        judged, last = set(checkpoints(spec.steps)), 0
        for step in range(1, spec.steps + 1):
            if not len(self.rows):
                return
            x = self._step(progress, momentum=step > 1)
            progress.arrive(x, *self._look(x))
            self.runs.steps[self.rows] += 1
            progress = self._without_the_fooled(progress)
            if step in judged:
                progress.judge(step - last)
                last = step
        self.runs.keep(self.rows, progress.best, progress.best_loss)

    def _start(self, attempt: int) -> Tensor:
        runs, clean = self.runs, self.runs.batch.clean[self.rows]
        names = [runs.batch.sample_ids[row] for row in self.rows.tolist()]
        noise = [
            start_in_ball(runs.spec, name, attempt, runs.spec.radius, clean.shape[1:])
            for name in names
        ]
        return (clean + torch.stack(noise).to(clean)).clamp(0, 1)

    def _look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return gradients and losses at `x`; note who is fooled there, whose gradient fails."""
        runs, rows = self.runs, self.rows
        labels, targets = runs.batch.labels[rows], runs.batch.targets[rows]
        climbed = loss_function(runs.spec.loss)
        found = runs.network.of(rows).ascent(x, climbed, labels, self.aims)
        runs.queries[rows] += 1
        runs.backward[rows] += 1
        fooled = runs.criterion.met(found.logits, labels, targets)
        runs.images[rows[fooled]] = x[fooled]
        runs.found[rows] |= fooled
        usable = found.gradient.flatten(1).isfinite().all(dim=1)
        runs.failed[rows] |= ~usable & ~fooled
        return found.gradient, found.losses

    def _step(self, progress: Climb, *, momentum: bool) -> Tensor:
        """Return the next iterates: most of a step in the ball, and some of the last movement."""
        spec, clean = self.runs.spec, self.runs.batch.clean[self.rows]
        tensors = (progress.x, progress.before, clean, progress.gradient, progress.size)
        stepped = []
        for count, (x, before, around, gradient, size) in self.runs.network.batches(*tensors):
            z, _ = spec.ball.step(x, around, gradient, size.view(-1, 1, 1, 1), spec.radius)
            if momentum:
                mixed = x + _NEW * (z - x) + (1 - _NEW) * (x - before)
                z = spec.ball.project(mixed, around, spec.radius)
            stepped.append(z[:count])
        return torch.cat(stepped)

    def _without_the_fooled(self, progress: Climb) -> Climb:
        going = ~(self.runs.found | self.runs.failed)[self.rows]
        if going.all():
            return progress
        self.rows, self.aims = self.rows[going], self.aims[going]
        return progress.rows(going)
