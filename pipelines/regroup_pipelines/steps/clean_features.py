"""Find the clean features that belong to attacked ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regroup_pipelines.errors import UsageError
from regroup_pipelines.steps.votes import source_of
from regroup_store.format.element import BlockElement
from regroup_store.kinds.indexes import SampleIndex

if TYPE_CHECKING:
    from regroup_pipelines.steps.session import Session
    from regroup_store.kinds.banks import StoredBank


def features_of(
    session: Session, bank: StoredBank, source: dict[str, str], what: str, labels: object = None
) -> BlockElement:
    """Return the finalised features of `source` under the bank's model and tap policy.

    Args:
        session: store and workers.
        bank: the bank.
        source: what the features were extracted from, as in their inputs.
        what: `source` in words, for the error.
        labels: the model's class of every label, as in the inputs of what comes from an index.

    Raises:
        UsageError: the store holds none.
    """
    for info in session.store.elements("features"):
        element = BlockElement.open(session.store, "features", info.ref)
        same = all(bank.inputs[key] == element.inputs[key] for key in ("model", "policy"))
        same &= element.inputs["source"] == source and element.inputs.get("labels") == labels
        if info.finalised and same:
            return element
    raise UsageError(
        f"the store holds no features of {what} under the model and taps of the bank {bank.ref}: "
        "run `regroup evaluate` with this bank and these adversarials first"
    )


def clean_index(session: Session, adversarials: BlockElement) -> str:
    """Return the fingerprint of the index that the attacked samples were drawn from."""
    index: SampleIndex = SampleIndex.open(session.store, str(adversarials.inputs["index"]))
    inputs: Any = index.manifest["inputs"]
    return str(inputs.get("parent", index.fingerprint))


def clean_features(session: Session, bank: StoredBank, features: BlockElement) -> BlockElement:
    """Return the features of the clean images behind `features`, or `features` if clean.

    Raises:
        UsageError: the store holds none that are complete.
    """
    attacked = source_of(features).get("adversarials")
    if attacked is None:
        return features
    made = BlockElement.open(session.store, "adversarials", attacked)
    source = {"index": clean_index(session, made)}
    what, labels = f"the clean images that {made.ref} come from", made.inputs.get("labels")
    return features_of(session, bank, source, what, labels)
