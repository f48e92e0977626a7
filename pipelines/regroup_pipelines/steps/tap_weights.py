"""Weights of the taps for the weighted Borda rule, from their accuracy on clean images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.configs.options import VotingOptions
from regroup_pipelines.errors import UsageError
from regroup_pipelines.log import log
from regroup_pipelines.results.counts import VoteSummary
from regroup_pipelines.steps.clean_features import clean_features
from regroup_pipelines.steps.votes import fill_votes
from regroup_store.errors import GapError

if TYPE_CHECKING:
    from regroup_pipelines.steps.session import Session
    from regroup_store.format.element import BlockElement
    from regroup_store.kinds.banks import StoredBank


def tap_weights(
    session: Session, bank: StoredBank, features: BlockElement, options: VotingOptions
) -> tuple[int, ...]:
    """Return, for each voting tap, how many correctly classified clean samples it gets right.

    They are counted in the Borda votes on clean images, which are scored first where the store
    lacks them.

    Raises:
        UsageError: see `clean_features`; no tap gets a sample right.
        GapError: the clean votes are incomplete.
    """
    clean = clean_features(session, bank, features)
    alone = VotingOptions(
        delta=options.delta, voting_taps=options.voting_taps, labels=options.labels
    )
    votes = fill_votes(session, clean, bank, alone, None)
    if votes.summary() is None:
        raise GapError(f"the votes {votes.ref}, which weight the taps, are incomplete")
    log(f"taps are weighted by their accuracy in the votes {votes.ref}")
    weights = VoteSummary.of(votes).correct.tap_top1.both
    if not any(weights):
        raise UsageError(
            f"no tap alone is right on a correctly classified sample of {clean.ref}, so that "
            "weighted-borda has no weights: choose another --rule"
        )
    return weights
