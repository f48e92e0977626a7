"""Evaluate: extract what is missing, score it against a bank, tabulate."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from regroup_pipelines.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regroup.choose_k import KChoice
    from regroup_pipelines.configs.options import VotingOptions
    from regroup_pipelines.configs.steps import EvaluateConfig
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
    from regroup_cluster.workers.scoring import ScoringJob
    from regroup_pipelines.results.accuracy import summarise
    from regroup_pipelines.steps.clean_features import tap_weights

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


def _votes(
    job: Job,
    features: BlockElement,
    bank: StoredBank,
    options: VotingOptions,
    taps: tuple[str, ...],
    weights: tuple[int, ...] | None,
) -> BlockElement:
    """The votes, opened where they are there, else begun."""
    from regroup_store.format.element import BlockElement
    from regroup_store.kinds.votes import votes_spec

    scoring: dict[str, Any] = {
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
    return BlockElement.create(job.store, spec, {})


def source_of(features: BlockElement) -> Mapping[str, str]:
    """What the features were extracted from: {"index": fingerprint} or {"adversarials": ...}."""
    source = features.inputs["source"]
    assert isinstance(source, dict)
    return source


def voting_taps(bank: StoredBank, names: tuple[str, ...]) -> tuple[str, ...]:
    """The bank's taps that may vote, in execution order; all when `names` is empty.

    Raises:
        UsageError: a name that the bank does not have; the nearest are suggested.
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
    """Refuse to score one model, or tap policy, against a bank of another.

    `other`: the "model" and "policy" of `what`, a description of it for the error.
    """
    ours = bank.inputs
    for key, difference in (("model", "another model"), ("policy", "another tap policy")):
        if ours[key] != other[key]:
            raise UsageError(
                f"the bank {bank.ref} is of {difference} than {what} "
                f"({_difference(ours[key], other[key])}): build a bank for it with "
                "`regroup build-bank`"
            )


def check_network(bank: StoredBank, network: Network) -> None:
    """Refuse a bank of another model or tap policy than `network`."""
    described = {"model": network.description, "policy": network.policy}
    check_same_model(bank, described, f"the model {network.spec.name}")


def check_labels(adversarials: BlockElement, index: SampleIndex, network: Network) -> None:
    """Refuse adversarials whose labels are not numbered as `network` numbers those of `index`."""
    from regroup_pipelines.steps.network import label_map

    ours, theirs = label_map(index, network), adversarials.inputs.get("labels")
    if (list(ours) if ours else None) != theirs:
        raise UsageError(
            f"the adversarials {adversarials.ref} number their classes in another way than the "
            f"model {network.spec.name} does for {index.ref}: give --classes as in the attack"
        )


def _difference(bank: Any, other: Any) -> str:
    if not isinstance(bank, dict):
        return f"bank: {bank}, here: {other}"
    key = next(key for key in bank | other if bank.get(key) != other.get(key))
    if key == "classes":
        return f"bank: {_range(bank)}, here: {_range(other)}; see --classes"
    return f"{key} of the bank: {bank.get(key)}, here: {other.get(key)}"


def _range(model: Mapping[str, Any]) -> str:
    classes = model.get("classes")
    return "all of its classes" if classes is None else f"restricted to {len(classes)} classes"


def rule_of_k(clean: dict[str, Any], threshold: float) -> KChoice:
    """k by the 75 % rule, from the summary of clean votes (paper, section 3.2; DESIGN §3)."""
    from regroup.choose_k import choose_k
    from regroup_pipelines.results.accuracy import tap_accuracy

    return choose_k(tap_accuracy(clean, "correct"), threshold)


def check_k(k: int, taps: tuple[str, ...]) -> int:
    """`k` itself when that many taps may vote; `UsageError` otherwise."""
    if not 1 <= k <= len(taps):
        raise UsageError(
            f"--k {k} is out of range: {len(taps)} taps may vote, so k is from 1 to {len(taps)}"
        )
    return k


def accuracy_row(name: str, summary: dict[str, Any], k: int, signs: str) -> dict[str, Any]:
    """One row of the accuracy table: attempted, #S, and softmax and REGroup over both groups."""
    groups = {"all": "all"} | ({"success": "S"} if summary["attacked"] else {})
    return {
        "images": name,
        "attempted": summary["all"]["n"],
        "failed": summary["failed"],
        "success": summary["success"]["n"] if summary["attacked"] else None,
        "k": k,
        "signs": signs,
        **accuracy_cells(summary, groups, k, signs),
    }


def accuracy_cells(
    summary: dict[str, Any], groups: Mapping[str, str], k: int, signs: str
) -> dict[str, Any]:
    """Softmax and REGroup, top-1 and top-5, over each group; `groups`: what cells call it."""
    from regroup_pipelines.results.accuracy import regroup_accuracy, softmax_accuracy

    cells: dict[str, Any] = {}
    for group, label in groups.items():
        for top in (1, 5):
            soft = softmax_accuracy(summary, group, top)
            ours = regroup_accuracy(summary, group, k, signs, top)
            cells[f"softmax_top{top}_{label}"] = soft.describe()
            cells[f"regroup_top{top}_{label}"] = ours.describe()
    return cells


def _adversarials(job: Job, ref: str) -> BlockElement:
    """The named adversarials; says how many samples they lack."""
    from regroup_pipelines.steps.session import log_gaps
    from regroup_store.format.element import BlockElement

    element = BlockElement.open(job.store, "adversarials", ref)
    log_gaps(f"evaluate {element.name}", element)
    return element


def main(config: EvaluateConfig) -> dict[str, Any]:
    """Extract and score the dataset and the named adversarials; print the table."""
    from regroup_pipelines.render.terminal import accuracy_table, show
    from regroup_pipelines.steps.extraction import extract_adversarials, extract_index
    from regroup_pipelines.steps.indexing import index_dataset
    from regroup_pipelines.steps.network import network_for, open_network
    from regroup_pipelines.steps.session import Job
    from regroup_store.kinds.banks import read_bank

    with Job(config, create=False, allow_missing=config.allow_missing) as job:
        bank = read_bank(job.store, config.bank)
        taps = voting_taps(bank, config.voting_taps)
        if config.k is not None:
            check_k(config.k, taps)
        network = open_network(config)
        if config.classes == "all":
            check_network(bank, network)
        attacked = [_adversarials(job, ref) for ref in config.adversarials]
        index = index_dataset(job, config.dataset)
        network = network_for(network, index, config.classes)
        check_network(bank, network)
        for element in attacked:
            check_labels(element, index, network)
        features = [extract_index(job, network, index, config.batch)]
        features += [extract_adversarials(job, network, a, config.batch) for a in attacked]
        votes = [score(job, f, bank, config) for f in features]
        summaries = [v.summary() or {} for v in votes]
        rule = rule_of_k(summaries[0], config.threshold)
        k = config.k or rule.k
        rows = [
            accuracy_row(v.name, s, k, config.signs) for v, s in zip(votes, summaries, strict=True)
        ]
        show(accuracy_table(rows), config.json)
        return {
            "bank": bank.ref,
            "votes": [v.ref for v in votes],
            "rule": {
                "k": rule.k,
                "count": rule.count,
                "threshold": rule.threshold,
                "reached": rule.reached,
            },
            "rows": rows,
            "tap_accuracy": dict(zip(taps, _own_accuracy(summaries[0]), strict=True)),
            "steps": job.summary(),
        }


def _own_accuracy(summary: dict[str, Any]) -> list[float]:
    from regroup_pipelines.results.accuracy import tap_accuracy

    return [round(float(a), 4) for a in np.asarray(tap_accuracy(summary, "all"))]


if __name__ == "__main__":
    from regroup_pipelines.cli import run_command

    run_command("evaluate")
