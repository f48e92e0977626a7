"""Noise, rotation and less contrast: attacks that should be weak, as a check on stronger ones.

The first two are Foolbox's, but each sample has its own randomness and stopping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from regroup.attacks.candidate_search import CandidateSearch
from regroup.attacks.criterion import Criterion
from regroup.attacks.outcome import KernelOutcome
from regroup.attacks.random_streams import stream
from regroup.attacks.spec import (
    AttackFacts,
    AttackSpec,
    Cost,
    Norm,
    Protocol,
    check_at_least,
    check_positive,
)
from regroup.attacks.transforms.spatial import (
    check_rotation,
    evenly_spaced,
    refuse_epsilon,
    try_transforms,
)
from regroup.attacks.transforms.warps import Transform
from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork


@dataclass(frozen=True, kw_only=True)
class Noise(AttackSpec):
    """Noise of one size, drawn again until the image is misclassified.

    Attributes:
        norm: "linf": uniform noise whose largest value is `epsilon`; "l2": Gaussian noise of length
            `epsilon` (a distance: the default is negligible there). Clipping to [0, 1] comes last
            and can make it smaller.
        repeats: maximum number of draws.
    """

    name: ClassVar[str] = "noise"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="Noise",
        norms=("linf", "l2"),
        protocols=("budget",),
        knowledge="black-box, decisions",
        source="Rauber et al. 2017",
        implementation="own, as foolbox 3 LinfRepeatedAdditiveUniformNoiseAttack and "
        "L2RepeatedAdditiveGaussianNoiseAttack",
    )

    norm: Norm = "linf"
    protocol: Protocol = "budget"
    epsilon: float | None = 4 / 255
    repeats: int = 100

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        if self.epsilon is None:
            raise ConfigurationError("noise needs an epsilon: the size of the noise")
        check_at_least(1, repeats=self.repeats)

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Return each sample's first draw that is misclassified, or its last one."""

        def candidates(rows: list[int], trial: int) -> Tensor:
            """Return images (R, C, H, W) to try on these rows."""
            shape = batch.clean.shape[1:]
            noise = [self.noise(batch.sample_ids[row], trial, shape) for row in rows]
            return (batch.clean[rows] + torch.stack(noise).to(batch.clean)).clamp(0, 1)

        return CandidateSearch(self, network, batch, candidates, self.repeats).run()

    def noise(self, sample_id: str, trial: int, shape: tuple[int, ...]) -> Tensor:
        """Return `shape` float32 of size `epsilon`: a sample's draw number `trial`."""
        assert self.epsilon is not None
        source = stream(self, sample_id, trial)
        if self.norm == "linf":
            drawn = 2 * source.random(shape) - 1
            size = np.abs(drawn).max()
        else:
            drawn = source.standard_normal(shape)
            size = np.sqrt(np.square(drawn).sum())
        return torch.from_numpy((drawn * (self.epsilon / size)).astype(np.float32))

    def cost(self) -> Cost:
        """Return a forward pass for each draw."""
        return Cost(self.repeats)


@dataclass(frozen=True, kw_only=True)
class Rotation(AttackSpec):
    """Rotations about the centre, small ones first, until one is misclassified.

    Attributes:
        max_rotation: degrees, in either direction.
        num_rotations: points between the two extremes; the clean image is not among them.
    """

    name: ClassVar[str] = "rotation"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="Rotation",
        norms=("none",),
        protocols=("minimal",),
        knowledge="black-box, decisions",
        source="Engstrom et al. 2019",
        implementation="own, as foolbox 3 SpatialAttack without translation",
    )

    norm: Norm = "none"
    protocol: Protocol = "minimal"
    max_rotation: float = 30.0
    num_rotations: int = 61

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        refuse_epsilon(self, "max_rotation")
        check_rotation(self.max_rotation)
        check_positive(max_rotation=self.max_rotation)
        check_at_least(2, num_rotations=self.num_rotations)

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Try the smallest angles first."""
        transforms = [Transform(0.0, 0.0, angle) for angle in self.angles()]
        return try_transforms(self, "foolbox3", transforms, network, batch)

    def angles(self) -> list[float]:
        """Return the degrees, by size; of two of one size the negative one comes first."""
        each = evenly_spaced(self.max_rotation, self.num_rotations)
        return sorted((angle for angle in each if angle != 0), key=abs)

    def cost(self) -> Cost:
        """Return a forward pass for each angle."""
        return Cost(len(self.angles()))


@dataclass(frozen=True, kw_only=True)
class Contrast(AttackSpec):
    """A blend of the image with plain grey, `grey` in every pixel and channel.

    `minimal`: the smallest share of grey that is misclassified, by bisection; `budget`: the blend
    at the L2 distance `epsilon`, or all grey if that is nearer.

    Attributes:
        grey: a pixel value.
        bisections: only for `minimal`; the share is found to 2 ** -bisections.
    """

    name: ClassVar[str] = "contrast"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="Contrast",
        norms=("l2",),
        protocols=("minimal", "budget"),
        knowledge="black-box, decisions",
        source="Rauber et al. 2017",
        implementation="own, as foolbox 3 BinarySearchContrastReductionAttack and "
        "L2ContrastReductionAttack",
    )

    norm: Norm = "l2"
    protocol: Protocol = "minimal"
    grey: float = 0.5
    bisections: int = 14

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        if self.protocol == "minimal":
            refuse_epsilon(self, "plain grey (of protocol budget it has one)")
        elif self.epsilon is None:
            raise ConfigurationError("contrast needs an epsilon for protocol budget: its distance")
        if not 0 <= self.grey <= 1:
            raise ConfigurationError(f"grey is {self.grey:g}: it is a pixel value, 0 to 1")
        check_at_least(0, bisections=self.bisections)

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Run the kernel of the protocol."""
        if self.protocol == "minimal":
            return _smallest_share(self, network, batch)
        shares = self._shares(batch.clean)

        def candidates(rows: list[int], trial: int) -> Tensor:  # noqa: ARG001
            """Return images (R, C, H, W) to try on these rows."""
            return self.blend(batch.clean[rows], shares[rows])

        return CandidateSearch(self, network, batch, candidates, 1).run()

    def _shares(self, clean: Tensor) -> Tensor:
        """Return (N,) float64: the share of grey that gives the distance `epsilon`; 1 at most."""
        assert self.epsilon is not None
        # One image at a time: a sum over a batch may round differently with its size.
        lengths = torch.stack(
            [(self.grey - image.double()).square().sum().sqrt() for image in clean]
        )
        return (self.epsilon / lengths).clamp(max=1)

    def blend(self, clean: Tensor, shares: Tensor) -> Tensor:
        """Return (N, C, H, W) with `shares` (N,) float64 of grey; float32 in [0, 1]."""
        exact = clean.double()
        return (exact + shares.view(-1, 1, 1, 1) * (self.grey - exact)).float().clamp(0, 1)

    def cost(self) -> Cost:
        """Return a forward pass for each share."""
        return Cost(1 + self.bisections if self.protocol == "minimal" else 1)

    def describe(self) -> dict[str, object]:
        """Return all that determines the examples; `budget` leaves out the search."""
        described = super().describe()
        if self.protocol == "budget":
            del described["bisections"]
        return described


def _smallest_share(spec: Contrast, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
    """Try plain grey first, then halve between the clean image and the best share.

    A share that was not checked is never returned: Foolbox returns plain grey if all fail.
    """
    criterion = Criterion.of(spec)
    bad = torch.zeros(len(batch), dtype=torch.float64, device=batch.clean.device)
    share, good, best = bad + 1, bad + 1, batch.clean
    found = torch.zeros_like(batch.labels, dtype=torch.bool)
    for _ in range(spec.cost().forward):
        blend = spec.blend(batch.clean, share)
        success = criterion.met(network.logits(blend), batch.labels, batch.targets)
        # Shares after a success only get smaller, so that the last success is the smallest.
        best, found = torch.where(success.view(-1, 1, 1, 1), blend, best), found | success
        good = torch.where(success, share, good)
        bad = torch.where(success | (share == 1), bad, share)
        share = (bad + good) / 2
    passes = torch.full_like(batch.labels, spec.cost().forward)
    nan = torch.full_like(good, torch.nan)
    return KernelOutcome(best, found, nan, passes, passes, torch.zeros_like(passes))
