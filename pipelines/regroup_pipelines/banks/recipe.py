"""How a bank is made of its samples, and which samples those are: what `build-bank` was told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from regroup.bank import DELTA

if TYPE_CHECKING:
    from typing import Self

    from regroup_pipelines.configs.options import BankOptions, WeightingName
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.kinds.banks import StoredBank


@dataclass(frozen=True, kw_only=True)
class BankRecipe:
    """All that determines a bank beside its features (paper, eq. 1; DESIGN §3).

    Attributes:
        per_class: correctly classified samples a class, the first in seeded order.
        weighting: lambda_j, of softmax confidences or uniform.
        seed: of the order.
        delta: added to accumulators before they become PMFs.
        replicate: number of a bootstrap replicate of these samples; None: the samples themselves.
    """

    per_class: int
    weighting: WeightingName
    seed: int
    delta: float
    replicate: int | None = None

    @classmethod
    def of(cls, options: BankOptions) -> Self:
        """The recipe that the options of `build-bank` give."""
        return cls(
            per_class=options.per_class,
            weighting=options.weighting,
            seed=options.bank_seed,
            delta=DELTA,
        )

    @classmethod
    def of_bank(cls, bank: StoredBank) -> Self:
        """The recipe that a stored bank was made by."""
        inputs: JsonObject = bank.inputs
        known = ("per_class", "weighting", "seed", "delta")
        return cls(**{key: inputs[key] for key in known}, replicate=inputs.get("replicate"))

    def inputs(self) -> JsonObject:
        """As the bank's inputs have it, hashed into its fingerprint."""
        declared = {
            "per_class": self.per_class,
            "weighting": self.weighting,
            "seed": self.seed,
            "delta": self.delta,
        }
        return declared if self.replicate is None else {**declared, "replicate": self.replicate}

    def replicates(self, count: int) -> list[Self]:
        """The recipes of `count` bootstrap replicates of this bank's samples."""
        return [replace(self, replicate=number) for number in range(count)]
