"""Evaluate: extract what is missing, score it against a bank, tabulate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_cluster.workers.scoring import ScoringJob
from regroup_pipelines.errors import UsageError
from regroup_pipelines.results.accuracy import summarise
from regroup_pipelines.steps.clean_features import tap_weights
from regroup_pipelines.steps.network import label_map
from regroup_pipelines.steps.votes import _votes, check_same_model, source_of, voting_taps

if TYPE_CHECKING:
    from regroup_pipelines.configs.options import VotingOptions
    from regroup_pipelines.steps.network import Network
    from regroup_pipelines.steps.session import Job
    from regroup_store.format.element import BlockElement
    from regroup_store.kinds.banks import StoredBank
    from regroup_store.kinds.indexes import SampleIndex


def score(
    job: Job,
    features: BlockElement,
    bank: StoredBank,
    options: VotingOptions,
) -> BlockElement:
    """Votes of `features` against `bank`, for every k and sign choice, in one pass; no network.

    Raises:
        UsageError: features and bank come from different models or tap policies.
    """

    check_same_model(bank, features.inputs, f"the features {features.ref}")
    taps = voting_taps(bank, options.voting_taps)
    weighted = options.rule == "weighted-borda"
    weights = tap_weights(job, bank, features, options) if weighted else None
    element = _votes(job, features, bank, options, taps, weights)
    task = ScoringJob(
        store_uri=job.store.uri,
        votes_ref=element.ref,
        features_ref=features.ref,
        adversarials_ref=source_of(features).get("adversarials"),
        bank_ref=bank.ref,
        taps=taps,
        delta=options.delta,
        tie_break=options.tie_break,
        device="cpu",
        rule=options.rule,
        weights=weights,
    )
    job.score(f"score {features.name}", element, task)
    job.finish(f"score {features.name}", element, summarise)
    return element


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
