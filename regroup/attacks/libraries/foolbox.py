"""Foolbox 3's kernels under this project's definitions of a sample, of success and of cost.

What Foolbox leaves to its caller, or does otherwise, is settled here once:

- Success is `Criterion`, during the search and in one last look at the returned images, which are
  not clipped. Where nothing was found the clean image stands, never a black one.
- An exception or NaN stays with the sample that caused it: the others run again without it.
- A kernel whose samples do not influence each other runs on batches of one size (the last one
  filled up with copies), so that all its arithmetic, not just the network's, has the same shapes
  for any batch. Any other kernel runs on the complete group (`AttackFacts.group`) at once.
- Random numbers come from a seed made of the spec's seed and the group's sample ids; the state of
  the global generators is restored.

Only a kernel's `run` is called: Foolbox's `__call__` would look once more, at a clipped image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from regroup.attacks.criterion import Criterion
from regroup.attacks.libraries.isolation import (
    NotFiniteError,
    frozen_parameters,
    isolate_failures,
    seeded_generators,
)
from regroup.attacks.outcome import KernelOutcome
from regroup.attacks.random_streams import group_seed
from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.spec import AttackSpec, Norm

# Calls between looks for NaN: each look waits for the device.
_LOOK = 32


@dataclass(frozen=True)
class Kernel:
    """One of Foolbox's attacks, ready to run.

    Attributes:
        run: called as run(model, pixels, criterion, **keywords) -> images (N, C, H, W); mostly the
            `run` of a Foolbox attack. Each of its calls of the model must pass the complete batch.
        keywords: passed unchanged.
        each: passed too, restricted to the attacked rows of each (N, ...).
        checks_all: every image that the kernel may return has been shown to the criterion, so that
            a row that was never adversarial is a failure whatever is returned (by C&W: a black
            image).
        keeps_closest: the closest image (in the norm of the spec) that has met the criterion
            counts, not the returned one. Only for kernels that show the criterion what they have
            just shown the model.
    """

    run: Callable[..., Tensor]
    keywords: Mapping[str, object] = field(default_factory=dict)
    each: Mapping[str, Tensor] = field(default_factory=dict)
    checks_all: bool = False
    keeps_closest: bool = False


def foolbox_attacks() -> ModuleType:
    """Return the module `foolbox.attacks`.

    Raises:
        ConfigurationError: Foolbox is not installed.
    """
    try:
        import foolbox.attacks
    except ImportError as error:
        raise ConfigurationError(
            f"this attack runs foolbox, which cannot be imported ({error}): pip install foolbox"
        ) from error
    module: ModuleType = foolbox.attacks
    return module


def check_no_epsilon(spec: AttackSpec) -> None:
    """Raise ConfigurationError if an attack without a limit has an epsilon."""
    if spec.epsilon is not None:
        raise ConfigurationError(
            f"{spec.name} looks for the smallest perturbation and takes no epsilon: "
            "its success at every epsilon follows from the distances of one run"
        )


def run_foolbox(
    spec: AttackSpec, network: AttackedNetwork, batch: AttackBatch, kernel: Kernel
) -> KernelOutcome:
    """Run `kernel` on N > 0 samples: in fixed batches, or on all at once if `spec` has a group.

    In the outcome, `steps` counts the kernel's looks at the criterion that did not end the sample's
    search; attacks that count otherwise replace it. What a kernel without a group does after a
    sample has succeeded, while others of its fixed batch continue, changes nothing and is not
    counted; what it does to a group counts for each of its samples.

    Errors of memory are not caught.

    Raises:
        ConfigurationError: the kernel needs gradients and the network has none.
    """
    runs = _Runs(spec, network, batch, kernel)
    with frozen_parameters(network.network):
        for rows in runs.parts():
            runs.failures |= isolate_failures(runs.run, rows, not runs.independent)
    return runs.outcome()


class _Runs:
    """The outcomes of a batch's samples so far."""

    def __init__(
        self, spec: AttackSpec, network: AttackedNetwork, batch: AttackBatch, kernel: Kernel
    ) -> None:
        self.spec, self.network, self.batch, self.kernel = spec, network, batch, kernel
        self.criterion = Criterion.of(spec)
        self.independent = spec.facts.group is None
        self.images = batch.clean.clone()
        self.claimed = torch.zeros_like(batch.labels, dtype=torch.bool)
        self.counts = batch.labels.new_zeros((3, len(batch)))
        self.failures: dict[int, str] = {}

    def parts(self) -> list[list[int]]:
        """Return the rows to run together."""
        rows = list(range(len(self.batch)))
        size = self.network.fixed_rows if self.independent else len(rows)
        return [rows[first : first + size] for first in range(0, len(rows), size)]

    def run(self, rows: list[int]) -> None:
        """Attack `rows`; keep their outcomes, and their passes even where it raises."""
        count = len(rows)
        fill = self.network.fixed_rows - count if self.independent else 0
        filled = rows + rows[:1] * fill
        part = self.batch.rows(filled)
        closest = _Closest(part.clean, self.spec.norm) if self.kernel.keeps_closest else None
        network = self.network.of(part.labels.new_tensor(rows))
        seen = _Observed(network.in_groups(self.spec.facts.group), part.labels, filled, closest)
        each = {name: tensor[filled] for name, tensor in self.kernel.each.items()}
        try:
            images = self._images(part, seen, each)
        finally:
            self.counts[:, rows] += seen.counts(self.independent)[:, :count]
        self.images[rows] = images[:count].clamp(0, 1)
        self.claimed[rows] = seen.succeeded[:count] if self.kernel.checks_all else True

    def _images(self, part: AttackBatch, seen: _Observed, each: dict[str, Tensor]) -> Tensor:
        """Return the kernel's images, finite, (N, C, H, W)."""
        from foolbox.models.pytorch import PyTorchModel

        device = self.network.device
        model = PyTorchModel(seen, bounds=(0, 1), device=device)
        criterion = _foolbox_criterion(self.criterion, part, seen)
        with seeded_generators(group_seed(self.spec, part.sample_ids), device), torch.enable_grad():
            images = self.kernel.run(model, part.clean, criterion, **self.kernel.keywords, **each)
        images = images.detach() if seen.closest is None else seen.closest.images
        seen.finite &= images.isfinite().flatten(1).all(dim=1)
        seen.look()
        return images

    def outcome(self) -> KernelOutcome:
        """Return the outcome after one last look, by the network as the verification runs it."""
        met = self.criterion.met(
            self.network.logits(self.images), self.batch.labels, self.batch.targets
        )
        self.claimed[list(self.failures)] = False
        found = met & self.claimed
        budget = self.spec.protocol == "budget"
        keep = found | (self.claimed & budget)
        images = torch.where(keep.view(-1, 1, 1, 1), self.images, self.batch.clean)
        epsilon = self.spec.epsilon if budget and self.spec.epsilon is not None else torch.nan
        radius = torch.full_like(found, epsilon, dtype=torch.float64)
        forward, backward, looks = self.counts
        return KernelOutcome(
            images, found, radius, looks, forward + 1, backward, dict(self.failures)
        )


class _Observed(nn.Module):
    """The network as the library sees it: it counts passes and watches for NaN."""

    def __init__(
        self,
        network: AttackedNetwork,
        labels: Tensor,
        rows: list[int],
        closest: _Closest | None,
    ) -> None:
        super().__init__()
        self.network, self.rows, self.closest = network, rows, closest
        self.latest: Tensor | None = None
        self.forwards, self.backwards, self.looks = 0, 0, 0
        self.finite = torch.ones_like(labels, dtype=torch.bool)
        self.succeeded = torch.zeros_like(self.finite)
        self.until_success = labels.new_zeros((3, len(labels)))
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, M) of the complete batch (N, C, H, W)."""
        logits = self.network.differentiable(pixels)
        self.latest = pixels.detach()
        self.forwards += 1
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        self.finite &= logits.detach().isfinite().all(dim=1)
        if self.forwards % _LOOK == 0:
            self.look()
        return logits

    def _count_backward(self, _: Tensor) -> None:
        self.backwards += 1

    def note(self, met: Tensor) -> None:
        """Record which rows, (N,) bool, are adversarial in the latest call."""
        first = met & ~self.succeeded
        for counts, so_far in zip(self.until_success, self._so_far(), strict=True):
            counts.masked_fill_(first, so_far)
        self.succeeded |= met
        self.looks += 1
        if self.closest is not None and self.latest is not None:
            self.closest.offer(self.latest, met)

    def look(self) -> None:
        """Raise NotFiniteError with the rows that have had logits or pixels that are not finite.

        In a kernel that couples its rows they would spoil the others' losses, or never let it end.
        """
        if not bool(self.finite.all()):
            broken = (~self.finite).nonzero().flatten().tolist()
            raise NotFiniteError([self.rows[index] for index in broken])

    def _so_far(self) -> tuple[int, int, int]:
        return self.forwards, self.backwards, self.looks

    def counts(self, until_success: bool) -> Tensor:
        """Return (3, N) int64: forward passes, backward passes and looks of each row.

        Args:
            until_success: count only up to a row's first success, that look's passes included.
        """
        whole = self.until_success.new_tensor(self._so_far()).view(3, 1)
        return torch.where(self.succeeded & until_success, self.until_success, whole)


class _Closest:
    """The closest adversarial image of each row so far; the clean image where there is none."""

    def __init__(self, clean: Tensor, norm: Norm) -> None:
        self.clean, self.order = clean, torch.inf if norm == "linf" else 2
        self.images = clean.clone()
        self.distance = clean.new_full((len(clean),), torch.inf)

    def offer(self, images: Tensor, met: Tensor) -> None:
        """Keep those of `images` (N, C, H, W) that are adversarial (`met`) and closer."""
        difference = (images - self.clean).flatten(1)
        distance = torch.linalg.vector_norm(difference, ord=self.order, dim=1)
        better = met & (distance < self.distance)
        self.distance = torch.where(better, distance, self.distance)
        self.images = torch.where(better.view(-1, 1, 1, 1), images, self.images)


def _foolbox_criterion(criterion: Criterion, batch: AttackBatch, seen: _Observed) -> Any:
    """Wrap `criterion` as a Foolbox criterion of the type that its attacks expect."""
    from eagerpy.astensor import astensor, astensor_
    from foolbox import criteria

    targeted = criterion.targeted
    base = criteria.TargetedMisclassification if targeted else criteria.Misclassification

    class FoolboxCriterion(base):  # type: ignore[misc, valid-type]
        def __call__(self, perturbed: Any, outputs: Any) -> Any:  # noqa: ARG002 (Foolbox's)
            logits, restore = astensor_(outputs)
            met = criterion.met(logits.raw, batch.labels, batch.targets)
            seen.note(met)
            return restore(astensor(met))

    return FoolboxCriterion(batch.targets if targeted else batch.labels)
