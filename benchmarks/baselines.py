"""The baselines of our attacks: libraries called directly, and PGD without compaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from regroup.attacks.criterion import Criterion
from regroup.attacks.network import cross_entropy
from regroup.attacks.pgd.steps import start_noise

if TYPE_CHECKING:
    from torch import Tensor, nn

    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.pgd.attack import PGD


def by_foolbox(
    attack: Any, model: nn.Module, pixels: Tensor, labels: Tensor, epsilon: float | None, rows: int
) -> Tensor:
    """Run a Foolbox attack on images (N, C, H, W), `rows` at a time, called as users call it."""
    from foolbox.models.pytorch import PyTorchModel

    wrapped = PyTorchModel(model, bounds=(0, 1), device=pixels.device)
    pairs = zip(torch.split(pixels, rows), torch.split(labels, rows), strict=True)
    return torch.cat([attack(wrapped, x, y, epsilons=epsilon)[1].detach() for x, y in pairs])


def by_torchattacks(attack: Any, pixels: Tensor, labels: Tensor, rows: int) -> Tensor:
    """Run an attack of torchattacks on images (N, C, H, W), `rows` at a time."""
    pairs = zip(torch.split(pixels, rows), torch.split(labels, rows), strict=True)
    return torch.cat([attack(x, y).detach() for x, y in pairs])


@dataclass
class _Search:
    """The radius of one sample's next try: multiplied by 1.5 until a success, then bisected."""

    epsilon: float
    growths: int
    bisections: int
    bad: float = 0.0
    good: float | None = None
    tries: int = 0

    def advance(self, success: bool) -> bool:
        """Record the outcome of a try, and return whether there is another one."""
        self.tries += 1
        if self.good is None and not success:
            self.epsilon, self.growths = 1.5 * self.epsilon, self.growths - 1
            return self.growths > 0
        self.bisections -= self.good is not None
        self.good, self.bad = (self.epsilon, self.bad) if success else (self.good, self.epsilon)
        assert self.good is not None
        self.epsilon = (self.good + self.bad) / 2
        return self.bisections > 0


def full_batch(spec: PGD, growths: int, network: AttackedNetwork, batch: AttackBatch) -> Tensor:
    """Run PGD `minimal`, L-infinity, without compaction: the same images, with more passes.

    All samples make their tries in parallel. Each step sends every row through the network, even
    if its try or its search has ended. A try ends when all rows have succeeded or have no steps
    left; the attack ends with the last search.

    Args:
        spec: the attack.
        growths: number of radii before a search fails.
        network: the network under attack.
        batch: images and labels.
    """
    searches = [_Search(spec.radius, growths, spec.bisections) for _ in batch.labels]
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
    searches: list[_Search],
    going: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the first adversarial iterates (N, C, H, W) of a try, and which rows have one (N,)."""
    clean, criterion = batch.clean, Criterion.of(spec)
    pairs = zip(batch.sample_ids, searches, strict=True)
    noise = [start_noise(spec, name, s.tries, s.epsilon, clean.shape[1:]) for name, s in pairs]
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
        stepped = x + spec.ratio * epsilon * gradient.sign() - clean
        x = (clean + stepped.clamp(-epsilon, epsilon)).clamp(0, 1)
    return kept, success
