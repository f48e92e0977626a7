"""Rotations and translations (Engstrom et al. 2019): the first of a grid that is misclassified."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import torch

from regroup.attacks.candidate_search import CandidateSearch
from regroup.attacks.random_streams import stream
from regroup.attacks.spec import (
    AttackFacts,
    AttackSpec,
    Cost,
    Norm,
    Protocol,
    check_at_least,
    check_one_of,
)
from regroup.attacks.transforms.warps import Library, Transform, warp
from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.outcome import KernelOutcome

Search = Literal["grid", "random"]

# The defaults of Foolbox 3's SpatialAttack; those of the class are Foolbox 2's, the paper's.
FOOLBOX3: Mapping[str, Any] = {
    "library": "foolbox3",
    "max_translation": 3.0,
    "num_translations": 5,
    "max_rotation": 30.0,
    "num_rotations": 5,
}


@dataclass(frozen=True, kw_only=True)
class Spatial(AttackSpec):
    """Every combination of shifts and rotations, until one is misclassified.

    Attributes:
        library: whose transform (interpolation, directions, see `warps`) and order of the grid.
        max_translation: pixels, in either direction, down and along.
        num_translations: points of the grid between the two extremes, on each axis.
        max_rotation: degrees, in either direction.
        num_rotations: points of the grid between the two extremes.
        search: "grid", which draws nothing, or "random": `random_steps` uniform transforms for each
            sample.
        random_steps: only for "random".
        abort_early: stop at the first success; otherwise all are tried and the success with the
            smallest mean squared perturbation is kept (Foolbox 2's parameter of this name).
    """

    name: ClassVar[str] = "spatial"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="Spatial",
        norms=("none",),
        protocols=("minimal",),
        knowledge="black-box, decisions",
        source="Engstrom et al. 2019",
        implementation="own, as foolbox 2.3 and foolbox 3 SpatialAttack",
    )

    norm: Norm = "none"
    protocol: Protocol = "minimal"
    library: Library = "foolbox2"
    max_translation: float = 5.0
    num_translations: int = 10
    max_rotation: float = 5.0
    num_rotations: int = 10
    search: Search = "grid"
    random_steps: int = 100
    abort_early: bool = True

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        refuse_epsilon(self, "max_translation and max_rotation")
        check_one_of("library of spatial", self.library, get_args(Library))
        check_one_of("search of spatial", self.search, get_args(Search))
        check_at_least(0, max_translation=self.max_translation)
        check_rotation(self.max_rotation)
        check_at_least(1, num_translations=self.num_translations, num_rotations=self.num_rotations)
        check_at_least(1, random_steps=self.random_steps)

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Try the transforms of each sample in their order."""
        if self.search == "grid":
            return try_transforms(self, self.library, self.grid(), network, batch, self.abort_early)
        drawn = [self.draws(name) for name in batch.sample_ids]

        def candidates(rows: list[int], trial: int) -> Tensor:
            """Return images (R, C, H, W) to try on these rows."""
            each = [warp(self.library, batch.clean[[row]], drawn[row][trial]) for row in rows]
            return torch.cat(each)

        count = self.random_steps
        return CandidateSearch(self, network, batch, candidates, count, not self.abort_early).run()

    def grid(self) -> list[Transform]:
        """Return all transforms, in the library's order."""
        shifts = evenly_spaced(self.max_translation, self.num_translations)
        angles = evenly_spaced(self.max_rotation, self.num_rotations)
        if self.library == "foolbox2":
            return [Transform(*each) for each in product(shifts, shifts, angles)]
        return [Transform(x, y, angle) for angle, x, y in product(angles, shifts, shifts)]

    def draws(self, sample_id: str) -> list[Transform]:
        """Return the random transforms of a sample."""
        unit = 2 * stream(self, sample_id, 0).random((self.random_steps, 3)) - 1
        limits = (self.max_translation, self.max_translation, self.max_rotation)
        return [Transform(*each) for each in (unit * limits).tolist()]

    def cost(self) -> Cost:
        """Return a forward pass for each transform."""
        grid = self.num_translations**2 * self.num_rotations
        return Cost(grid if self.search == "grid" else self.random_steps)

    def describe(self) -> dict[str, object]:
        """Return all that determines the examples, without the parameters of the other search."""
        described = super().describe()
        if self.search == "grid":
            del described["random_steps"]
        else:
            del described["num_translations"], described["num_rotations"]
        return described


def evenly_spaced(limit: float, count: int) -> list[float]:
    """Return `count` values from -limit to limit; a single one is -limit, as in NumPy."""
    values: list[float] = np.linspace(-limit, limit, count).tolist()
    return values


def refuse_epsilon(spec: AttackSpec, limits: str) -> None:
    """Raise ConfigurationError if there is an epsilon: Foolbox takes one here and ignores it."""
    if spec.epsilon is not None:
        raise ConfigurationError(
            f"{spec.name} has no epsilon: it is limited by {limits}, give those instead"
        )


def check_rotation(degrees: float) -> None:
    """Raise ConfigurationError unless `degrees` is an angle up to a half turn."""
    if not 0 <= degrees <= 180:
        raise ConfigurationError(f"max_rotation is {degrees:g}: it is in degrees, 0 to 180")


def try_transforms(
    spec: AttackSpec,
    library: Library,
    transforms: list[Transform],
    network: AttackedNetwork,
    batch: AttackBatch,
    abort_early: bool = True,
) -> KernelOutcome:
    """Try the same transforms for every sample, in the given order."""

    def candidates(rows: list[int], trial: int) -> Tensor:
        """Return images (R, C, H, W) to try on these rows."""
        return warp(library, batch.clean[rows], transforms[trial])

    return CandidateSearch(spec, network, batch, candidates, len(transforms), not abort_early).run()
