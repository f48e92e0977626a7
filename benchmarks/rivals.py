"""What our attacks are timed against: libraries called directly, and PGD without compaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from regroup.attacks.attacked_network import cross_entropy
from regroup.attacks.criterion import Criterion
from regroup.attacks.minimal import EpsilonSearch
from regroup.attacks.pgd import project
from regroup.attacks.random_streams import start_noise

if TYPE_CHECKING:
    from torch import Tensor, nn

    from regroup.attacks.attacked_network import AttackedNetwork
    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.pgd import PGD


def by_foolbox(
    attack: Any, model: nn.Module, pixels: Tensor, labels: Tensor, epsilon: float | None, rows: int
) -> Tensor:
    """What a Foolbox attack makes of images (N, C, H, W), `rows` at a time, called as users do."""
    from foolbox import PyTorchModel

    wrapped = PyTorchModel(model, bounds=(0, 1), device=pixels.device)
    pairs = zip(pixels.split(rows), labels.split(rows), strict=True)
    return torch.cat([attack(wrapped, x, y, epsilons=epsilon)[1].detach() for x, y in pairs])


def by_torchattacks(attack: Any, pixels: Tensor, labels: Tensor, rows: int) -> Tensor:
    """What an attack of torchattacks makes of images (N, C, H, W), `rows` at a time."""
    pairs = zip(pixels.split(rows), labels.split(rows), strict=True)
    return torch.cat([attack(x, y).detach() for x, y in pairs])


def full_batch(spec: PGD, network: AttackedNetwork, batch: AttackBatch) -> Tensor:
    """PGD `minimal` without compaction: its images, to the bit, for more passes.

    The samples make their tries side by side. A step takes every row through the network, whether
    its try or its whole search has ended or not; a try ends when all rows have succeeded or are
    out of steps, and all ends with the last search.
    """
    searches = [
        EpsilonSearch(spec.radius, spec.growth_limit, spec.bisections) for _ in batch.labels
    ]
    going = torch.ones_like(batch.labels, dtype=torch.bool)
    best = batch.clean.clone()
    smallest = torch.full(going.shape, torch.inf, dtype=torch.float64, device=going.device)
    while bool(going.any()):
        images, success = _one_try(spec, network, batch, searches, going)
        size = (images.double() - batch.clean).square().mean(dim=(1, 2, 3))
        smaller = success & (size < smallest)
        best[smaller], smallest[smaller] = images[smaller], size[smaller]
        for row in going.nonzero().flatten().tolist():
            going[row] = searches[row].advance(bool(success[row]))
    return best


def _one_try(
    spec: PGD,
    network: AttackedNetwork,
    batch: AttackBatch,
    searches: list[EpsilonSearch],
    going: Tensor,
) -> tuple[Tensor, Tensor]:
    """The first adversarial iterates (N, C, H, W) of a try, and which rows have one (N,) bool."""
    clean, criterion = batch.clean, Criterion.of(spec)
    pairs = zip(batch.sample_ids, searches, strict=True)
    noise = [start_noise(spec, i, s.attempt, s.epsilon, clean.shape[1:]) for i, s in pairs]
    # float32, as the attack itself has the radius
    epsilon = clean.new_tensor([search.epsilon for search in searches]).view(-1, 1, 1, 1)
    x, kept = clean + torch.stack(noise).to(clean), clean.clone()
    success = torch.zeros_like(going)
    for step in range(spec.steps + 1):
        logits, gradient = network.gradient(x, cross_entropy, batch.labels)
        met = criterion.met(logits, batch.labels, batch.targets) & going & ~success
        met &= step > 0
        kept[met], success = x[met], success | met
        if bool((success | ~going).all()):
            break
        x = project(x + spec.step_ratio * epsilon * gradient.sign(), clean, epsilon)
    return kept, success
