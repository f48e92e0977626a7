"""PGD, protocol `budget`: all steps in a fixed ball."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regroup.attacks.criterion import Criterion
from regroup.attacks.outcome import KernelOutcome
from regroup.attacks.pgd.steps import objective, start_noise

if TYPE_CHECKING:
    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.pgd.spec import PGDSpec


def run_budget(spec: PGDSpec, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
    """Take `steps` full steps for every sample inside the ball of radius `epsilon`.

    Keeps a sample's last successful iterate, or the final one if no iterate was successful (any
    success in the ball counts).
    """
    clean, labels = batch.clean, batch.labels
    starts = [start_noise(spec, name, 0, spec.radius, clean.shape[1:]) for name in batch.sample_ids]
    x = (clean + torch.stack(starts).to(clean)).clamp(0, 1)
    rows = torch.arange(len(batch), device=clean.device)
    parts = [
        [result[:count] for result in _full_steps(spec, network.of(samples[:count]), *tensors)]
        for count, (samples, *tensors) in network.batches(rows, clean, x, labels, batch.targets)
    ]
    kept, found, failed = (torch.cat(part) for part in zip(*parts, strict=True))
    steps = torch.full_like(labels, spec.steps)
    epsilon = clean.new_full(labels.shape, spec.radius).double()  # as rounded to the precision used
    return KernelOutcome(
        torch.where(_column(failed), clean, kept),
        found & ~failed,
        epsilon.masked_fill(failed, torch.nan),
        steps,
        steps + 1,
        steps,
        dict.fromkeys(failed.nonzero().flatten().tolist(), spec.ball.failure),
    )


def _full_steps(
    spec: PGDSpec,
    network: AttackedNetwork,
    clean: Tensor,
    x: Tensor,
    labels: Tensor,
    targets: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one batch of the network: images kept, (N,) whether they succeed, (N,) who failed."""
    criterion, (climbed, classes) = Criterion.of(spec), objective(spec, labels, targets)
    # A float32 product, as for the rows of `minimal`.
    size = float(spec.ratio * torch.tensor(spec.radius, dtype=clean.dtype))
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
