"""Score features against a bank, after checking that they fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.errors import UsageError
from regroup_pipelines.steps.recorded_logits import require_same_logits
from regroup_pipelines.steps.tap_weights import tap_weights
from regroup_pipelines.steps.votes import check_same_model, fill_votes

if TYPE_CHECKING:
    from regroup_pipelines.configs.options import VotingOptions
    from regroup_pipelines.steps.network import Network
    from regroup_pipelines.steps.session import Session
    from regroup_store.format.element import BlockElement
    from regroup_store.kinds.banks import StoredBank


def score(
    session: Session, features: BlockElement, bank: StoredBank, options: VotingOptions
) -> BlockElement:
    """Score `features` against `bank` for every k and sign choice; return the votes.

    A rule with weighted taps derives the weights from the votes on clean images, which are scored
    first where the store lacks them.

    Raises:
        UsageError: features and bank come from different models or tap policies.
    """
    weighted = options.rule == "weighted-borda"
    weights = tap_weights(session, bank, features, options) if weighted else None
    return fill_votes(session, features, bank, options, weights)


def check_network(bank: StoredBank, network: Network) -> None:
    """Check that a bank belongs to `network` and its tap policy.

    Raises:
        UsageError: it does not, or the network has changed since.
    """
    described = {"model": network.description, "policy": network.policy}
    check_same_model(bank, described, f"the model {network.spec.name}")
    require_same_logits(network, bank.manifest, f"banks/{bank.ref}")


def check_k(k: int, taps: tuple[str, ...]) -> int:
    """Return `k`.

    Raises:
        UsageError: fewer than `k` taps may vote, or `k` is not positive.
    """
    if not 1 <= k <= len(taps):
        raise UsageError(
            f"--k {k} is out of range: {len(taps)} taps may vote, so k is from 1 to {len(taps)}"
        )
    return k
