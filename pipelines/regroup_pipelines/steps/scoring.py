"""Scoring features against a bank, and what must fit together for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.errors import UsageError
from regroup_pipelines.steps.network import label_map
from regroup_pipelines.steps.tap_weights import tap_weights
from regroup_pipelines.steps.votes import check_same_model, fill_votes

if TYPE_CHECKING:
    from regroup_pipelines.configs.options import VotingOptions
    from regroup_pipelines.steps.network import Network
    from regroup_pipelines.steps.session import Session
    from regroup_store.format.element import BlockElement
    from regroup_store.kinds.banks import StoredBank
    from regroup_store.kinds.indexes import SampleIndex


def score(
    session: Session, features: BlockElement, bank: StoredBank, options: VotingOptions
) -> BlockElement:
    """Votes of `features` against `bank`, for every k and sign choice, in one pass; no network.

    A rule that weighs taps takes its weights from the votes of the clean features, which are scored
    first where the store lacks them.

    Raises:
        UsageError: features and bank come from different models or tap policies.
    """
    weighted = options.rule == "weighted-borda"
    weights = tap_weights(session, bank, features, options) if weighted else None
    return fill_votes(session, features, bank, options, weights)


def check_network(bank: StoredBank, network: Network) -> None:
    """Refuse a bank of another model or tap policy than `network`."""
    described = {"model": network.description, "policy": network.policy}
    check_same_model(bank, described, f"the model {network.spec.name}")


def check_labels(adversarials: BlockElement, index: SampleIndex, network: Network) -> None:
    """Refuse adversarials whose labels are not numbered as `network` numbers those of `index`."""
    ours, theirs = label_map(index, network), adversarials.inputs.get("labels")
    if (list(ours) if ours else None) != theirs:
        raise UsageError(
            f"the adversarials {adversarials.ref} number their classes in another way than the "
            f"model {network.spec.name} does for {index.ref}: give --classes as in the attack"
        )


def check_k(k: int, taps: tuple[str, ...]) -> int:
    """`k` itself when that many taps may vote; `UsageError` otherwise."""
    if not 1 <= k <= len(taps):
        raise UsageError(
            f"--k {k} is out of range: {len(taps)} taps may vote, so k is from 1 to {len(taps)}"
        )
    return k
