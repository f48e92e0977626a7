"""Banks of other recipes from the features behind a stored bank, without a forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regroup.candidates import first_depth, next_depths
from regroup_pipelines.banks.build import reduce_bank
from regroup_pipelines.banks.recipe import BankRecipe
from regroup_pipelines.banks.rounds import CandidateLookup, candidates_of
from regroup_pipelines.configs.options import BankOptions
from regroup_pipelines.errors import UsageError
from regroup_pipelines.steps.bank_labels import recorded_labels
from regroup_pipelines.steps.recorded_logits import probe_of
from regroup_pipelines.steps.session import warn_missing
from regroup_store.format.element import BlockElement
from regroup_store.format.lineage import features_of_index, holds_candidates
from regroup_store.format.manifests import find_location
from regroup_store.kinds.banks import BankSpec, read_bank
from regroup_store.kinds.indexes import SampleIndex

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.steps.session import Session
    from regroup_store.kinds.banks import StoredBank

    Deepen = Callable[
        [NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int], NDArray[np.int64]
    ]

NAMED_CLASSES = 3


@dataclass(frozen=True, eq=False)
class BankOrigin:
    """The training images and features that a stored bank was drawn from.

    Attributes:
        bank: the bank.
        index: the training images.
        features: all stored features of them under the bank's model, taps and precision.
        labels: the model's class of every label of the index, None where they are the same.
    """

    bank: StoredBank
    index: SampleIndex
    features: list[BlockElement]
    labels: tuple[int, ...] | None

    @classmethod
    def of(cls, session: Session, bank: StoredBank) -> BankOrigin:
        """Find the origin of `bank` in the store.

        Raises:
            UsageError: the index or the features are no longer in the store.
        """
        one = _features_of(session, bank)
        index = _training_index(session, bank, one)
        refs = features_of_index(session.store, index, one.inputs)
        features = [BlockElement.open(session.store, "features", ref) for ref in refs]
        for element in features:
            warn_missing(f"images of {bank.ref}", element)
        labels: Any = one.inputs.get("labels")
        return cls(
            bank,
            SampleIndex.open(session.store, index),
            features,
            tuple(labels) if labels else None,
        )

    def look_up(self, recipe: BankRecipe) -> CandidateLookup:
        """Look up the samples that `recipe` draws in the stored features.

        It first considers as many images per class as `build-bank` would, so that a bank of this
        recipe that `build-bank` made is found again; failing that, as few as possible.

        Raises:
            UsageError: some were never extracted.
            ConfigurationError: fewer than one sample per class.
        """
        per_class = recipe.per_class
        expected = first_depth(per_class, BankOptions.expected_accuracy)
        for depth, deepen in ((expected, next_depths), (per_class, minimal_depths)):
            found = self._look(recipe, depth, deepen)
            if not found.unknown:
                return found
        raise _never_extracted(self.bank, recipe, found)

    def _look(self, recipe: BankRecipe, depth: int, deepen: Deepen) -> CandidateLookup:
        depths = np.full(len(self.bank.class_names), depth, np.int64)
        while True:
            candidates = candidates_of(self.index, self.labels, depths, recipe.seed)
            found = CandidateLookup(self.features, candidates, recipe.per_class, recipe.seed)
            deeper = deepen(depths, candidates.images, found.correct, recipe.per_class)
            if found.unknown or (deeper <= depths).all():
                return found
            depths = deeper

    def build(self, session: Session, recipe: BankRecipe, found: CandidateLookup) -> StoredBank:
        """Build the bank of `recipe` from what `look_up` found; its own recipe gives the bank."""
        own = BankRecipe.of_bank(self.bank)
        if recipe == own:
            return self.bank
        draw = found.draw(self.bank.class_names, recipe.replicate)
        known: JsonObject = self.bank.inputs
        kept = ("model", "policy", "label_order")
        inputs = {key: known[key] for key in kept if key in known}
        recorded = {**recorded_labels(self.bank.manifest), **probe_of(self.bank.manifest)}
        spec = BankSpec(
            "-".join([str(self.bank.manifest["name"]), *_suffixes(own, recipe)]),
            {**inputs, **recipe.inputs(), **draw.inputs()},
            tuple((str(tap), int(channels)) for tap, channels in known["taps"]),
            self.bank.class_names,
        )
        return read_bank(session.store, reduce_bank(session, spec, draw, recipe, recorded))


def minimal_depths(
    depths: NDArray[np.int64],
    images: NDArray[np.int64],
    correct: NDArray[np.int64],
    per_class: int,
) -> NDArray[np.int64]:
    """Return the next depths, as `next_depths` does, but never deeper than needed.

    Args:
        depths: images of each class considered so far, (M,) int64.
        images: images that each class has, (M,) int64.
        correct: correctly classified ones among those considered, (M,) int64.
        per_class: samples that each class needs.
    """
    deeper: NDArray[np.int64] = np.minimum(depths + np.maximum(per_class - correct, 0), images)
    return np.maximum(deeper, depths)


def _suffixes(own: BankRecipe, recipe: BankRecipe) -> list[str]:
    """Return a suffix per setting that differs from `own`, to name a bank of another recipe."""
    ours = own.inputs()
    return [
        f"{key.replace('_', '-')}-{value}"
        for key, value in recipe.inputs().items()
        if ours.get(key) != value
    ]


def _features_of(session: Session, bank: StoredBank) -> BlockElement:
    """Open one of the features elements that the bank was made from."""
    named: Any = bank.inputs["features"]
    for fingerprint in named if isinstance(named, list) else [named]:
        if find_location(session.store.backend, "features", fingerprint):
            return BlockElement.open(session.store, "features", fingerprint)
    raise _gone(bank, "features")


def _training_index(session: Session, bank: StoredBank, features: BlockElement) -> str:
    """Return the fingerprint of the index of the complete dataset behind `features`."""
    source: Any = features.inputs["source"]
    fingerprint = str(source["index"])
    if find_location(session.store.backend, "indexes", fingerprint):
        inputs: Any = SampleIndex.open(session.store, fingerprint).manifest["inputs"]
        if holds_candidates(session.store, "indexes", inputs):
            fingerprint = str(inputs["parent"])
        if find_location(session.store.backend, "indexes", fingerprint):
            return fingerprint
    raise _gone(bank, "index")


def _gone(bank: StoredBank, what: str) -> UsageError:
    return UsageError(
        f"the {what} that the bank {bank.ref} was made from is no longer in the store, and other "
        "banks need it: run `regroup build-bank` with the options of this bank to make it again"
    )


def _never_extracted(bank: StoredBank, recipe: BankRecipe, found: CandidateLookup) -> UsageError:
    counts = np.bincount(found.unknown_labels, minlength=len(bank.class_names))
    most = np.argsort(-counts, kind="stable")[:NAMED_CLASSES]
    named = ", ".join(f"{counts[y]} of class {bank.class_names[y]}" for y in most if counts[y])
    classes = int((counts > 0).sum())
    more = f" and some of {classes - NAMED_CLASSES} more classes" if classes > NAMED_CLASSES else ""
    return UsageError(
        f"a bank of {recipe.per_class} per class with seed {recipe.seed} takes images that were "
        f"never extracted ({named}{more}), and re-scoring makes no forward pass: extract them with "
        f"`regroup build-bank --per-class {recipe.per_class} --bank-seed {recipe.seed}` and the "
        f"dataset and model of {bank.ref}"
    )
