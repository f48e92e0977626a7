"""Foolbox 3's kernels under our definitions of a sample, of success and of cost.

What Foolbox leaves to its caller, or does otherwise, is settled here once:

- Success is `Criterion`, during the search and in one last look at what comes back, of images that
  nothing is clipped from; where nothing was found the clean image stands, never a black one.
- An exception or NaN stays with the sample that caused it: the others run again without it.
- A kernel whose samples do not influence each other is given batches of one size (the last one
  filled up with copies), so that all its arithmetic, not just the network's, has the same shapes
  for any batch. Any other kernel is given the whole group (`AttackFacts.group`) at once.
- Random numbers come from a seed made of the spec's and of the group's sample ids; the state of
  the global generators is put back.

Only a kernel's `run` is called: Foolbox's `__call__` would look once more, at a clipped image.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from regroup.attacks.criterion import Criterion
from regroup.attacks.libraries.isolation import frozen, seeded
from regroup.attacks.outcome import Found
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

    run: called as run(model, pixels, criterion, **keywords) -> images (N, C, H, W); mostly the
        `run` of a Foolbox attack. Each of its calls of the model must pass the whole batch.
    keywords: passed as they are. each: passed too, as the rows of (N, ...) that are attacked.
    judges: every image that it may hand back has been shown to the criterion, so that a row that
        was never adversarial is a failure whatever comes back (of C&W: a black image).
    keeps: the closest image (in the norm of the spec) that has met the criterion counts, not what
        comes back. Only of kernels that show the criterion what they have just shown the model.
    """

    run: Callable[..., Tensor]
    keywords: Mapping[str, object] = field(default_factory=dict)
    each: Mapping[str, Tensor] = field(default_factory=dict)
    judges: bool = False
    keeps: bool = False


def foolbox_attacks() -> ModuleType:
    """The module `foolbox.attacks`; ConfigurationError where Foolbox is not installed."""
    try:
        import foolbox.attacks
    except ImportError as error:
        raise ConfigurationError(
            f"this attack runs foolbox, which cannot be imported ({error}): pip install foolbox"
        ) from error
    module: ModuleType = foolbox.attacks
    return module


def check_no_epsilon(spec: AttackSpec) -> None:
    """Raise ConfigurationError where an attack without a limit is given an epsilon."""
    if spec.epsilon is not None:
        raise ConfigurationError(
            f"{spec.name} looks for the smallest perturbation and takes no epsilon: "
            "its success at every epsilon follows from the distances of one run"
        )


def run_foolbox(
    spec: AttackSpec, network: AttackedNetwork, batch: AttackBatch, kernel: Kernel
) -> Found:
    """Run `kernel` on samples, N > 0: on fixed batches, or on all at once if `spec` has a group.

    Of the Found: `steps` counts the kernel's looks at the criterion that did not end the search of
    the sample; attacks that count otherwise replace it. What a kernel without a group does after a
    sample has succeeded, while others of its fixed batch go on, changes nothing and is not counted;
    what it does to a group counts for each of its samples.
    Raises ConfigurationError on a network without gradients where the kernel needs them; lets
    errors of memory through.
    """
    runs = _Runs(spec, network, batch, kernel)
    with frozen(network.network):
        for rows in runs.parts():
            runs.failures |= isolated(runs.run, rows, not runs.independent)
    return runs.found()


def group_network(spec: AttackSpec, network: AttackedNetwork) -> AttackedNetwork:
    """`network` in batches no larger than the group of `spec`: padding beyond it costs time."""
    if spec.facts.group is None:
        return network
    return replace(network, rows=min(network.fixed_rows, spec.facts.group))


def isolated(run: Callable[[list[int]], None], rows: list[int], together: bool) -> dict[int, str]:
    """`run(rows)`; where it fails, again without the rows that fail: those, with why.

    Rows that are known to give NaN are left out at once, others are found by halving.
    together: rows influence each other, so that what remains runs as one group again.
    """
    try:
        run(rows)
    except (ConfigurationError, MemoryError, torch.OutOfMemoryError):
        raise
    except NotFiniteError as error:
        failed, again = dict.fromkeys(error.rows, str(error)), True
    except Exception as error:
        if len(rows) == 1:
            return {rows[0]: _one_line(error)}
        half = len(rows) // 2
        failed = isolated(run, rows[:half], False) | isolated(run, rows[half:], False)
        again = together and bool(failed)
    else:
        return {}
    rest = [row for row in rows if row not in failed]
    return failed | (isolated(run, rest, together) if again and rest else {})


class _Runs:
    """What has come of the samples of a batch so far."""

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
        """The rows to run together."""
        rows = list(range(len(self.batch)))
        size = self.network.fixed_rows if self.independent else len(rows)
        return [rows[first : first + size] for first in range(0, len(rows), size)]

    def run(self, rows: list[int]) -> None:
        """Attack `rows`; what comes of them is kept, and what they took even where it raises."""
        count = len(rows)
        fill = self.network.fixed_rows - count if self.independent else 0
        filled = rows + rows[:1] * fill
        part = self.batch.rows(filled)
        closest = _Closest(part.clean, self.spec.norm) if self.kernel.keeps else None
        seen = _Observed(group_network(self.spec, self.network), part.labels, filled, closest)
        each = {name: tensor[filled] for name, tensor in self.kernel.each.items()}
        try:
            images = self._images(part, seen, each)
        finally:
            self.counts[:, rows] += seen.counts(self.independent)[:, :count]
        self.images[rows] = images[:count].clamp(0, 1)
        self.claimed[rows] = seen.succeeded[:count] if self.kernel.judges else True

    def _images(self, part: AttackBatch, seen: _Observed, each: dict[str, Tensor]) -> Tensor:
        """What the kernel hands back, finite, (N, C, H, W)."""
        from foolbox.models.pytorch import PyTorchModel

        device = self.network.device
        model = PyTorchModel(seen, bounds=(0, 1), device=device)
        judge = _judge(self.criterion, part, seen)
        with seeded(group_seed(self.spec, part.sample_ids), device), torch.enable_grad():
            images = self.kernel.run(model, part.clean, judge, **self.kernel.keywords, **each)
        images = images.detach() if seen.closest is None else seen.closest.images
        seen.finite &= images.isfinite().flatten(1).all(dim=1)
        seen.look()
        return images

    def found(self) -> Found:
        """One last look, by the network as the verification has it."""
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
        return Found(images, found, radius, looks, forward + 1, backward, dict(self.failures))


class _Observed(nn.Module):
    """The network as the library sees it: it counts, and it looks out for NaN."""

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
        """Logits (N, M) of the whole batch (N, C, H, W)."""
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
        """Rows (N,) bool that are adversarial in the latest call."""
        first = met & ~self.succeeded
        for counts, so_far in zip(self.until_success, self._so_far(), strict=True):
            counts.masked_fill_(first, so_far)
        self.succeeded |= met
        self.looks += 1
        if self.closest is not None and self.latest is not None:
            self.closest.offer(self.latest, met)

    def look(self) -> None:
        """Raise NotFiniteError with the rows that have had logits or pixels that are not finite.

        In a kernel that couples its rows they spoil the others' losses, or never let it end.
        """
        if not bool(self.finite.all()):
            broken = (~self.finite).nonzero().flatten().tolist()
            raise NotFiniteError([self.rows[place] for place in broken])

    def _so_far(self) -> tuple[int, int, int]:
        return self.forwards, self.backwards, self.looks

    def counts(self, until_success: bool) -> Tensor:
        """(3, N) int64: forward passes, backward passes and looks of each row.

        until_success: only what came before its first success, that look's passes included.
        """
        whole = self.until_success.new_tensor(self._so_far()).view(3, 1)
        return torch.where(self.succeeded & until_success, self.until_success, whole)


class _Closest:
    """The closest adversarial image of each row so far; the clean one where there is none."""

    def __init__(self, clean: Tensor, norm: Norm) -> None:
        self.clean, self.order = clean, torch.inf if norm == "linf" else 2
        self.images = clean.clone()
        self.distance = clean.new_full((len(clean),), torch.inf)

    def offer(self, images: Tensor, met: Tensor) -> None:
        """Take those of `images` (N, C, H, W) that are adversarial (`met`) and closer."""
        difference = (images - self.clean).flatten(1)
        distance = torch.linalg.vector_norm(difference, ord=self.order, dim=1)
        better = met & (distance < self.distance)
        self.distance = torch.where(better, distance, self.distance)
        self.images = torch.where(better.view(-1, 1, 1, 1), images, self.images)


class NotFiniteError(Exception):
    """The kernel or the network gave NaN or infinity for `rows` of the batch."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__("the kernel or the network gave NaN or infinity")
        self.rows = rows


def _judge(criterion: Criterion, batch: AttackBatch, seen: _Observed) -> Any:
    """`criterion` as a Foolbox criterion of the kind that its attacks ask for."""
    from eagerpy.astensor import astensor, astensor_
    from foolbox import criteria

    targeted = criterion.targeted
    base = criteria.TargetedMisclassification if targeted else criteria.Misclassification

    class Judge(base):  # type: ignore[misc, valid-type]
        def __call__(self, perturbed: Any, outputs: Any) -> Any:  # noqa: ARG002 (Foolbox's)
            logits, restore = astensor_(outputs)
            met = criterion.met(logits.raw, batch.labels, batch.targets)
            seen.note(met)
            return restore(astensor(met))

    return Judge(batch.targets if targeted else batch.labels)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
