"""Votes: check that features and bank fit together, then score the missing blocks."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from regroup_cluster.workers.scoring import ScoringWork
from regroup_pipelines.errors import UsageError
from regroup_pipelines.results.counts import summarise
from regroup_pipelines.steps.bank_labels import check_stored_labels
from regroup_store.format.element import BlockElement
from regroup_store.kinds.votes import votes_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regroup_pipelines.configs.options import VotingOptions
    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.steps.session import Session
    from regroup_store.kinds.banks import StoredBank


def fill_votes(
    session: Session,
    features: BlockElement,
    bank: StoredBank,
    options: VotingOptions,
    weights: tuple[int, ...] | None,
) -> BlockElement:
    """Score `features` against `bank` for every k and sign choice; return the votes.

    Args:
        session: store and workers.
        features: the features.
        bank: the bank.
        options: how features are scored.
        weights: one per voting tap, for a rule with weights; else None.

    Raises:
        UsageError: features and bank come from different models or tap policies, or number their
            classes differently.
    """
    check_same_model(bank, features.inputs, f"the features {features.ref}")
    if options.labels == "name":
        check_stored_labels(session.store, features, bank)
    taps = voting_taps(bank, options.voting_taps)
    element = _open_votes(session, features, bank, options, taps, weights)
    work = ScoringWork(
        store_uri=session.store.uri,
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
    session.fill_by_tasks(f"score {features.name}", element, work)
    session.finish(f"score {features.name}", element, summarise)
    return element


def _open_votes(
    session: Session,
    features: BlockElement,
    bank: StoredBank,
    options: VotingOptions,
    taps: tuple[str, ...],
    weights: tuple[int, ...] | None,
) -> BlockElement:
    """Open the votes, or create them where the store has none."""
    scoring: JsonObject = {
        "rule": options.rule,
        "tie_break": options.tie_break,
        "delta": options.delta,
    }
    if weights is not None:
        scoring["weights"] = list(weights)
    spec = votes_spec(
        name=features.name,
        features_fingerprint=features.fingerprint,
        bank_fingerprint=bank.fingerprint,
        scoring=scoring,
        taps=taps,
        rows=features.plan.rows,
        block_rows=features.plan.block_rows,
        gaps=features.gap_inputs(),
    )
    return BlockElement.create(session.store, spec, {})


def source_of(features: BlockElement) -> Mapping[str, str]:
    """Return the source of features: {"index": fingerprint} or {"adversarials": fingerprint}."""
    source = features.inputs["source"]
    assert isinstance(source, dict)
    return source


def voting_taps(bank: StoredBank, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the bank's taps that may vote, in execution order; all where `names` is empty.

    Raises:
        UsageError: the bank has no tap of a name; the message suggests the nearest.
    """
    for name in names:
        if name not in bank.taps:
            near = get_close_matches(name, bank.taps, 3) or bank.taps[-3:]
            raise UsageError(
                f"--voting-taps {name}: the bank {bank.ref} has no such tap: did you mean "
                f"{' or '.join(near)}?"
            )
    return tuple(tap for tap in bank.taps if not names or tap in names)


def check_same_model(bank: StoredBank, other: Mapping[str, Any], what: str) -> None:
    """Check that a bank has the model and the tap policy of something else.

    Args:
        bank: the bank.
        other: inputs with the keys "model" and "policy".
        what: what `other` describes, in words, for the error.

    Raises:
        UsageError: they differ.
    """
    ours = bank.inputs
    for key, difference in (("model", "another model"), ("policy", "another tap policy")):
        if ours[key] != other[key]:
            raise UsageError(
                f"the bank {bank.ref} is of {difference} than {what} "
                f"({_difference(ours[key], other[key])}): build a bank for it with "
                "`regroup build-bank`"
            )


def _difference(bank: Any, other: Any) -> str:
    if not isinstance(bank, dict):
        return f"bank: {bank}, here: {other}"
    key = next(key for key in bank | other if bank.get(key) != other.get(key))
    if key == "classes":
        return f"bank: {_range(bank)}, here: {_range(other)}; see --classes"
    if key == "source_sha256" and key not in bank:
        return "the bank was built before the source of a network was part of its description"
    return f"{key} of the bank: {bank.get(key)}, here: {other.get(key)}"


def _range(model: Mapping[str, Any]) -> str:
    classes = model.get("classes")
    return "all of its classes" if classes is None else f"restricted to {len(classes)} classes"
