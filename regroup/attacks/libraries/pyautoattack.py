"""pyautoattack's kernels under this project's definitions of a sample, of success and of cost.

The library couples the samples of a batch. What it leaves to its caller, or does otherwise, is
settled here once:

- The group (`AttackFacts.group`) runs as one, from a seed made of the spec's seed and the group's
  sample ids; the state of the global generators is restored.
- Success is `Criterion`, on images that are not changed afterwards.
- An exception stays with the sample that caused it: the others run again without it.
- Passes are counted per sample, whichever of the group the library leaves out of a call.
- What the library remarks about the network is kept, per sample (`autoattack_checks`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from regroup.attacks.criterion import Criterion
from regroup.attacks.libraries.autoattack_checks import Remark, RemarksLogger, run_checks
from regroup.attacks.libraries.isolation import (
    frozen_parameters,
    isolate_failures,
    seeded_generators,
)
from regroup.attacks.outcome import KernelOutcome
from regroup.attacks.random_streams import group_seed
from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.spec import AttackSpec, Norm

    # From clean images (n, C, H, W) in [0, 1] and labels (n,) to images of the same shape.
    Kernel = Callable[[Tensor, Tensor], Tensor]
    # The kernels in order, for a network and the seed of a group.
    Kernels = Callable[["CountedNetwork", int], Sequence[Kernel]]

# By the authors of AutoAttack, MIT, without requirements. On PyPI `autoattack` does not exist;
# torchattacks has the same kernels and pins a `requests` of 2021; the Adversarial Robustness
# Toolbox has no FAB, and its AutoAttack is another set of attacks.
LIBRARY = "pyautoattack"
LIBRARY_NORMS = {"linf": "Linf", "l2": "L2"}


def library_module(module: str) -> ModuleType:
    """Return a module of the library.

    Raises:
        ConfigurationError: the library is not installed.
    """
    try:
        return import_module(f"{LIBRARY}.{module}")
    except ImportError as error:
        raise ConfigurationError(
            f"this attack runs {LIBRARY}, which cannot be imported ({error}): pip install {LIBRARY}"
        ) from error


def run_sequentially(
    spec: AttackSpec,
    network: AttackedNetwork,
    batch: AttackBatch,
    kernels: Kernels,
    checks: bool = False,
) -> KernelOutcome:
    """Run each kernel on those samples of a group, N > 0, that no kernel before it has broken.

    With `checks`, the library's own come first, and the last kernel is Square, which breaks no
    sample alone unless the others' gradients are of little use.

    In the outcome, `images` holds the image of the kernel that broke the sample, the clean image
    where none did (the library keeps no last iterate); `epsilon` is the spec's; `steps` counts
    backward passes, attacks that count otherwise replace it.

    Errors of memory are not caught.

    Raises:
        ConfigurationError: a kernel needs gradients and the network has none.
    """
    group = _Group(spec, network, batch, kernels, checks)
    with frozen_parameters(network.network):
        failures = isolate_failures(group.run, list(range(len(batch))), together=False)
    return group.outcome(failures | group.not_finite())


class _Group:
    """The outcomes of a group's samples so far."""

    def __init__(
        self,
        spec: AttackSpec,
        network: AttackedNetwork,
        batch: AttackBatch,
        kernels: Kernels,
        checks: bool,
    ) -> None:
        self.spec, self.network, self.batch, self.kernels = spec, network, batch, kernels
        self.checks, self.flags = checks, torch.zeros_like(batch.labels)
        self.criterion = Criterion.of(spec)
        self.images = batch.clean.clone()
        self.finite = torch.ones_like(batch.labels, dtype=torch.bool)
        self.forward, self.backward = batch.labels.new_zeros((2, len(batch)))

    def run(self, rows: list[int]) -> None:
        """Attack `rows`; keep their outcomes, and their passes even where it raises."""
        part = self.batch.rows(rows)
        network = self.network.of(part.labels.new_tensor(rows))
        seen = CountedNetwork(network.in_groups(self.spec.facts.group), part.clean, self.spec.norm)
        seed = group_seed(self.spec, part.sample_ids)
        try:
            self._check(seen, part, seed)
            with seeded_generators(seed, self.network.device), torch.enable_grad():
                self.images[rows] = self._run_kernels(seen, part, self.kernels(seen, seed))
        finally:
            self._remark(rows, seen.logger.remarks)
            self.finite[rows] &= seen.finite
            self.forward[rows] += seen.forwards
            self.backward[rows] += seen.backwards

    def _check(self, seen: CountedNetwork, part: AttackBatch, seed: int) -> None:
        if self.checks:
            with seeded_generators(seed, self.network.device), torch.enable_grad():
                run_checks(library_module("checks"), seen, part.clean, part.labels, seen.logger)

    def _remark(self, rows: list[int], remarks: Remark) -> None:
        """Add the remarks on a group; that on zero gradients only where there were some."""
        watch, kept = self.network.watch, torch.full_like(self.flags[rows], int(remarks))
        if watch is not None:
            kept[watch.zero[rows] == 0] &= ~int(Remark.ZERO_GRADIENT)
        self.flags[rows] |= kept

    def _run_kernels(
        self, seen: CountedNetwork, part: AttackBatch, kernels: Sequence[Kernel]
    ) -> Tensor:
        images, left = part.clean.clone(), torch.arange(len(part), device=part.clean.device)
        for number, kernel in enumerate(kernels, start=1):
            if not len(left):
                break
            labels, targets = part.labels[left], part.targets[left]
            made = kernel(part.clean[left], labels).detach()
            met = self.criterion.met(seen.look(made), labels, targets)
            images[left[met]] = made[met]
            if self.checks and number == len(kernels):
                self._alone(part, left[met])
            left = left[~met]
        return images

    def _alone(self, part: AttackBatch, rows: Tensor) -> None:
        """Remark that Square, the last kernel, broke the samples at `rows` of `part`."""
        names = {part.sample_ids[row] for row in rows.tolist()}
        broken = [row for row, name in enumerate(self.batch.sample_ids) if name in names]
        self.flags[broken] |= int(Remark.SQUARE_ALONE)

    def not_finite(self) -> dict[int, str]:
        """Return the rows whose logits were ever not finite: no verdict about the network."""
        rows = (~self.finite).nonzero().flatten().tolist()
        return dict.fromkeys(rows, "the network gave NaN or infinity")

    def outcome(self, failures: dict[int, str]) -> KernelOutcome:
        """Return the outcome after one last look, by the network as the verification runs it."""
        batch, spec = self.batch, self.spec
        logits = self.network.logits(self.images)
        found = self.criterion.met(logits, batch.labels, batch.targets)
        radius = torch.nan if spec.epsilon is None else spec.epsilon
        epsilon = torch.full_like(found, radius, dtype=torch.float64)
        forward, backward = self.forward + 1, self.backward
        return KernelOutcome(
            self.images, found, epsilon, backward, forward, backward, failures, self.flags
        )


class CountedNetwork(nn.Module):
    """The network as the library sees it, on some or all samples of a group, in their order.

    A library leaves samples out of a call once it has broken them, and does not say which. But of
    two consecutive calls one has all samples of the other, so that equally many are the same; where
    their number changes, each image is attributed to the sample whose clean image is nearest. At
    such a change the library passes clean images, or images inside the ball: the attribution can be
    wrong only where two clean images are nearer to each other than twice the ball's radius.

    Attributes:
        forwards: (N,) int64, forward passes of each sample.
        backwards: (N,) int64, backward passes of each sample.
        finite: (N,) bool, whether all its logits were finite.
        logger: takes the library's remarks.
    """

    def __init__(self, network: AttackedNetwork, clean: Tensor, norm: Norm) -> None:
        super().__init__()
        self.network, self.clean = network, clean
        self.order = torch.inf if norm == "linf" else 2.0
        self.rows = torch.arange(len(clean), device=clean.device)
        self.forwards, self.backwards = self.rows.new_zeros((2, len(clean)))
        self.finite = torch.ones_like(self.rows, dtype=torch.bool)
        self.classes, self.logger = 0, RemarksLogger()
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (n, C, H, W) of n <= N samples to logits (n, M)."""
        if not len(pixels):  # Square, if all margins are zero: neither broken nor left to break
            return pixels.new_empty((0, self.classes))
        rows = self._rows_of(pixels)
        logits = self.network.of(rows).differentiable(pixels)
        self.classes = logits.shape[1]
        self.forwards[rows] += 1
        self.finite[rows] &= logits.detach().isfinite().all(dim=1)
        if logits.requires_grad:
            logits.register_hook(lambda _: self._count_backward(rows))  # type: ignore[no-untyped-call]
        return logits

    def look(self, pixels: Tensor) -> Tensor:
        """Run `forward` without a gradient."""
        with torch.no_grad():
            logits: Tensor = self(pixels)
        return logits

    def _rows_of(self, pixels: Tensor) -> Tensor:
        """Return the samples, (n,) int64, that the images belong to."""
        if len(pixels) != len(self.rows):
            difference = pixels.detach().flatten(1)[:, None] - self.clean.flatten(1)
            distance = torch.linalg.vector_norm(difference, ord=self.order, dim=2)
            self.rows = self.rows.new_tensor(nearest_in_order(distance.tolist()))
        return self.rows

    def _count_backward(self, rows: Tensor) -> None:
        self.backwards[rows] += 1


def nearest_in_order(distances: list[list[float]]) -> list[int]:
    """Return the nearest of N >= n samples for each of n images; ascending, so that none repeats.

    Args:
        distances: (n, N), of images whose samples ascend.
    """
    rows: list[int] = []
    for position, each in enumerate(distances):
        first = rows[-1] + 1 if rows else 0
        beyond = len(each) - (len(distances) - position) + 1
        rows.append(min(range(first, beyond), key=each.__getitem__))
    return rows
