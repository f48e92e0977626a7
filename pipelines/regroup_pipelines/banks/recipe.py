"""The recipe of a bank: which samples it takes, and how it weights them."""

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
    """All that determines a bank besides its features (paper, eq. 1; docs/bank.md).

    Attributes:
        per_class: correctly classified samples per class, the first ones in seeded order.
        weighting: the weights lambda_j: softmax confidences, or uniform.
        seed: seed of the order.
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
        """Return the recipe that the options of `build-bank` describe."""
        return cls(
            per_class=options.per_class,
            weighting=options.weighting,
            seed=options.bank_seed,
            delta=DELTA,
        )

    @classmethod
    def of_bank(cls, bank: StoredBank) -> Self:
        """Return the recipe of a stored bank."""
        inputs: JsonObject = bank.inputs
        known = ("per_class", "weighting", "seed", "delta")
        return cls(**{key: inputs[key] for key in known}, replicate=inputs.get("replicate"))

    def inputs(self) -> JsonObject:
        """Return the recipe's part of the bank's inputs, which its fingerprint hashes."""
        declared = {
            "per_class": self.per_class,
            "weighting": self.weighting,
            "seed": self.seed,
            "delta": self.delta,
        }
        return declared if self.replicate is None else {**declared, "replicate": self.replicate}

    def replicates(self, count: int) -> list[Self]:
        """Return the recipes of `count` bootstrap replicates of this recipe's samples."""
        return [replace(self, replicate=number) for number in range(count)]
