"""Clean features that belong to attacked ones, and how good each tap is on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regroup_pipelines.configs.options import VotingOptions
from regroup_pipelines.errors import UsageError
from regroup_pipelines.steps.scoring import score
from regroup_pipelines.steps.session import log
from regroup_pipelines.steps.votes import source_of
from regroup_store.errors import GapError
from regroup_store.format.element import BlockElement
from regroup_store.kinds.indexes import SampleIndex

if TYPE_CHECKING:
    from regroup_pipelines.steps.session import Job
    from regroup_store.kinds.banks import StoredBank


def features_of(job: Job, bank: StoredBank, source: dict[str, str], what: str) -> BlockElement:
    """The finalised features of `source` under the bank's model and tap policy.

    Raises:
        UsageError: the store holds none.
    """

    for info in job.store.elements("features"):
        element = BlockElement.open(job.store, "features", info.ref)
        same = all(bank.inputs[key] == element.inputs[key] for key in ("model", "policy"))
        if info.finalised and same and element.inputs["source"] == source:
            return element
    raise UsageError(
        f"the store holds no features of {what} under the model and taps of the bank {bank.ref}: "
        "run `regroup evaluate` with this bank and these adversarials first"
    )


def clean_index(job: Job, adversarials: BlockElement) -> str:
    """Fingerprint of the index that the attacked samples were drawn from."""

    index: SampleIndex = SampleIndex.open(job.store, str(adversarials.inputs["index"]))
    inputs: Any = index.manifest["inputs"]
    return str(inputs.get("parent", index.fingerprint))


def clean_features(job: Job, bank: StoredBank, features: BlockElement) -> BlockElement:
    """The features of the clean images that `features` are of, or were attacked from.

    Raises:
        UsageError: the store holds none that are whole.
    """

    attacked = source_of(features).get("adversarials")
    if attacked is None:
        return features
    made = BlockElement.open(job.store, "adversarials", attacked)
    whole = {"index": clean_index(job, made)}
    return features_of(job, bank, whole, f"the clean images that {made.ref} come from")


def tap_weights(
    job: Job, bank: StoredBank, features: BlockElement, options: VotingOptions
) -> tuple[int, ...]:
    """How many clean samples each voting tap of the bank gets right, of those that softmax does.

    From the Borda votes of the clean features, which are scored first where the store lacks them.

    Raises:
        UsageError: see `clean_features`; no tap gets a sample right.
        GapError: the clean votes are not whole.
    """

    clean = clean_features(job, bank, features)
    alone = VotingOptions(delta=options.delta, voting_taps=options.voting_taps)
    votes = score(job, clean, bank, alone)
    summary: dict[str, Any] | None = votes.summary()
    if summary is None:
        raise GapError(f"the votes {votes.ref}, which weigh the taps, are not whole")
    log(f"taps are weighted by their accuracy in the votes {votes.ref}")
    weights = tuple(int(hits) for hits in summary["correct"]["tap_top1"]["both"])
    if not any(weights):
        raise UsageError(
            f"no tap gets a correctly classified sample of {clean.ref} right, so that "
            "weighted-borda has no weights: choose another --rule"
        )
    return weights
