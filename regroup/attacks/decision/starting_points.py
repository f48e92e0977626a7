"""Where decision-based attacks begin: an adversarial mixture of each image with uniform noise.

Like Foolbox's LinearSearchBlendedUniformNoiseAttack, but each sample draws from its own stream and
proceeds independently: a sample that no noise fools is a failed attack, and the others continue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from regroup.attacks.criterion import Criterion
from regroup.attacks.libraries.foolbox import Kernel, run_foolbox
from regroup.attacks.libraries.isolation import NotFiniteError, isolate_failures
from regroup.attacks.outcome import KernelOutcome
from regroup.attacks.random_streams import stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.spec import AttackSpec


@dataclass(frozen=True)
class Starts:
    """One row per sample.

    Attributes:
        images: (N, C, H, W), clean where nothing was found.
        found: (N,) bool.
        queries: (N,) int64.
        failures: row -> one-line reason, as `KernelOutcome.failures`.
    """

    images: Tensor
    found: Tensor
    queries: Tensor
    failures: Mapping[int, str]


def starting_points(
    spec: AttackSpec, network: AttackedNetwork, batch: AttackBatch, directions: int, blends: int
) -> Starts:
    """Find each sample's starting point.

    The first of up to `directions` noise images that fools the network, mixed in with the smallest
    of `blends` equal shares that suffices (the share grows from 1 / `blends`).
    """
    search = _Search(spec, network.in_groups(spec.facts.group), batch, directions, blends)
    failures = isolate_failures(search.run, list(range(len(batch))), together=False)
    return Starts(search.images, search.found, search.queries, failures)


class _Search:
    """The state of all samples."""

    def __init__(
        self,
        spec: AttackSpec,
        network: AttackedNetwork,
        batch: AttackBatch,
        directions: int,
        blends: int,
    ) -> None:
        self.spec, self.network, self.batch = spec, network, batch
        self.directions, self.blends = directions, blends
        self.criterion = Criterion.of(spec)
        self.images, self.noise = batch.clean.clone(), batch.clean.clone()
        self.found = torch.zeros_like(batch.labels, dtype=torch.bool)
        self.queries = torch.zeros_like(batch.labels)

    def run(self, rows: list[int]) -> None:
        """Find the starting points of `rows`; the outcome of each row depends on that row alone."""
        fooled = self._noise_that_fools(rows)
        if fooled:
            self._blend(fooled)

    def _noise_that_fools(self, rows: list[int]) -> list[int]:
        """Return the rows for which fooling noise was found, which `noise` then holds."""
        streams = {row: stream(self.spec, self.batch.sample_ids[row], 0) for row in rows}
        shape, waiting = self.batch.clean.shape[1:], rows
        for _ in range(self.directions):
            drawn = [streams[row].random(tuple(shape), dtype=np.float32) for row in waiting]
            noise = torch.from_numpy(np.stack(drawn)).to(self.batch.clean)
            waiting = self._accept(waiting, noise, self.noise)
            if not waiting:
                break
        return [row for row in rows if row not in waiting]

    def _blend(self, rows: list[int]) -> None:
        """Write into `images` the least share of the noise that fools the network."""
        waiting = rows
        for step in range(1, self.blends):
            share, clean = step / self.blends, self.batch.clean[waiting]
            mixed = ((1 - share) * clean + share * self.noise[waiting]).clamp(0, 1)
            waiting = self._accept(waiting, mixed, self.images)
            if not waiting:
                break
        self.images[waiting] = self.noise[waiting]
        self.found[rows] = True

    def _accept(self, rows: list[int], images: Tensor, kept: Tensor) -> list[int]:
        """Write those of `images` that are adversarial into `kept`; return the other rows."""
        logits = self.network.logits(images)
        self.queries[rows] += 1
        finite = logits.isfinite().all(dim=1)
        if not bool(finite.all()):
            broken = zip(rows, finite.tolist(), strict=True)
            raise NotFiniteError([row for row, sound in broken if not sound])
        met = self.criterion.met(logits, self.batch.labels[rows], self.batch.targets[rows])
        positions = met.nonzero().flatten().tolist()
        kept[[rows[i] for i in positions]] = images[positions]
        return [row for row, fooled in zip(rows, met.tolist(), strict=True) if not fooled]


def run_from_starts(
    spec: AttackSpec, network: AttackedNetwork, batch: AttackBatch, kernel: Kernel, starts: Starts
) -> KernelOutcome:
    """Run `kernel` on the samples that have a starting point; the others are unsuccessful."""
    nothing = replace(
        KernelOutcome.unsuccessful(batch), queries=starts.queries, failures=starts.failures
    )
    rows = starts.found.nonzero().flatten().tolist()
    if not rows:
        return nothing
    begun = replace(kernel, each={**kernel.each, "starting_points": starts.images[rows]})
    return _spread(nothing, run_foolbox(spec, network, batch.rows(rows), begun), rows)


def _spread(nothing: KernelOutcome, part: KernelOutcome, rows: list[int]) -> KernelOutcome:
    """Insert `part` at `rows` of `nothing`; add the passes of both."""
    names = ("images", "found", "epsilon")
    changed = {name: getattr(nothing, name).clone() for name in names}
    for name, tensor in changed.items():
        tensor[rows] = getattr(part, name)
    counted = ("steps", "queries", "backward")
    for name in counted:
        changed[name] = getattr(nothing, name).clone()
        changed[name][rows] += getattr(part, name)
    failures = {rows[row]: why for row, why in part.failures.items()}
    return replace(nothing, **changed, failures={**nothing.failures, **failures})
