"""Attacks that try a fixed list of candidates, each made without looking at the last answer.

A sample is done at its first success and leaves the batch. When few samples are left, the rows of
the network's batch that would be padding hold their next candidates: the outcome is the same, since
candidates do not depend on each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from regroup.attacks.criterion import Criterion
from regroup.attacks.outcome import KernelOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.spec import AttackSpec

    # Rows of the batch, number of the candidate -> (rows, C, H, W) in [0, 1].
    Candidates = Callable[[list[int], int], Tensor]


class CandidateSearch:
    """The state of all samples of a batch; `run` gives each its candidates 0, 1, ... `count` - 1.

    Args:
        spec: the attack.
        network: the network under attack.
        batch: its samples.
        candidates: makes the images of some rows' candidate by its number.
        count: candidates per sample.
        smallest: try all and keep the success with the smallest mean squared perturbation, instead
            of the first one.
    """

    def __init__(
        self,
        spec: AttackSpec,
        network: AttackedNetwork,
        batch: AttackBatch,
        candidates: Candidates,
        count: int,
        smallest: bool = False,
    ) -> None:
        self.spec, self.network, self.batch = spec, network, batch
        self.candidates, self.count, self.smallest = candidates, count, smallest
        self.criterion = Criterion.of(spec)
        self.kept = batch.clean.clone()
        self.tried = torch.zeros_like(batch.labels)
        self.best = torch.full(
            batch.labels.shape, torch.inf, dtype=torch.float64, device=batch.labels.device
        )

    def run(self) -> KernelOutcome:
        """Return one row per sample.

        Without a success: the clean image under `minimal`, else the last candidate.
        """
        active, trial = list(range(len(self.batch))), 0
        while active and trial < self.count:
            together = max(1, self.network.fixed_rows // len(active))
            trials = range(trial, min(trial + together, self.count))
            active, trial = self._tick(active, trials), trials.stop
        found = self.best.isfinite()
        radius = self.spec.epsilon if self.spec.protocol == "budget" else None
        epsilon = torch.full_like(self.best, torch.nan if radius is None else radius)
        nothing = torch.zeros_like(self.tried)
        return KernelOutcome(self.kept, found, epsilon, self.tried, self.tried, nothing)

    def _tick(self, active: list[int], trials: range) -> list[int]:
        """Try several candidates of each active row in one pass; return the rows still active."""
        rows = torch.tensor(active, device=self.kept.device)
        images = torch.stack([self.candidates(active, trial) for trial in trials], dim=1)
        success = self._succeeds(rows, images)
        if self.smallest:
            self._keep_smallest(rows, images, success)
            return active
        return self._keep_first(rows, images, success).tolist()

    def _succeeds(self, rows: Tensor, images: Tensor) -> Tensor:
        """Return (rows, trials) bool for images (rows, trials, C, H, W)."""
        count, trials = images.shape[:2]
        logits = self.network.logits(images.flatten(0, 1))
        labels = self.batch.labels[rows].repeat_interleave(trials)
        targets = self.batch.targets[rows].repeat_interleave(trials)
        return self.criterion.met(logits, labels, targets).view(count, trials)

    def _keep_first(self, rows: Tensor, images: Tensor, success: Tensor) -> Tensor:
        """Keep each row's first success; return the rows without one.

        Candidates after the first success do not count as tried.
        """
        found = success.any(dim=1)
        position = torch.where(found, success.int().argmax(dim=1), success.shape[1] - 1)
        chosen = images[torch.arange(len(rows), device=rows.device), position]
        if self.spec.protocol == "budget":
            self.kept[rows] = chosen
        self.kept[rows[found]] = chosen[found]
        self.best[rows[found]] = 0.0
        self.tried[rows] += position + 1
        return rows[~found]

    def _keep_smallest(self, rows: Tensor, images: Tensor, success: Tensor) -> None:
        """Keep the smaller of each row's best and its successes here; ties: the earlier one."""
        for position in range(success.shape[1]):
            image = images[:, position]
            # One image at a time: a mean over a batch may round differently with its size.
            difference = image.double() - self.batch.clean[rows]
            mse = torch.stack([each.square().mean() for each in difference])
            better = success[:, position] & (mse < self.best[rows])
            self.kept[rows[better]], self.best[rows[better]] = image[better], mse[better]
        self.tried[rows] += success.shape[1]
