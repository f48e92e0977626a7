"""Re-score: every k and sign choice from stored features; no forward pass, counted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from regroup_pipelines.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regroup_pipelines.configs.options import VotingOptions
    from regroup_pipelines.configs.stored import RescoreConfig
    from regroup_pipelines.steps.session import Job
    from regroup_store.format.element import BlockElement
    from regroup_store.kinds.banks import StoredBank


def find_features(job: Job, bank: StoredBank, refs: tuple[str, ...]) -> list[BlockElement]:
    """The named features, or all complete ones of the bank's model and tap policy.

    Those of images tried for a bank, which are no split, are left out unless they are named.

    Raises:
        UsageError: the store holds none.
    """
    from regroup_store.format.element import BlockElement
    from regroup_store.format.lineage import of_candidates

    if refs:
        return [BlockElement.open(job.store, "features", ref) for ref in refs]
    complete = [info.ref for info in job.store.elements("features") if info.finalised]
    elements = [BlockElement.open(job.store, "features", ref) for ref in complete]
    found = [
        e
        for e in elements
        if _same_network(bank.inputs, e.inputs) and not of_candidates(job.store, e.kind, e.inputs)
    ]
    if not found:
        raise UsageError(
            f"the store holds no features of the model of {bank.ref}: run `regroup extract` or "
            "`regroup evaluate` first"
        )
    return found


def _same_network(bank: Mapping[str, Any], features: Mapping[str, Any]) -> bool:
    return all(bank[key] == features[key] for key in ("model", "policy"))


def rescore(
    job: Job, bank: StoredBank, features: list[BlockElement], options: VotingOptions
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Votes' summaries by features, and the cost: seconds and forward passes counted.

    By the features' name, or their ref where several have the same: attacks that differ in epsilon.
    """
    from regroup_pipelines.steps.scoring import score
    from regroup_pipelines.steps.session import log_gaps

    for element in features:
        log_gaps(f"score {element.name}", element)
    started, entry = time.perf_counter(), len(job.ledger)
    votes = [score(job, element, bank, options) for element in features]
    steps = job.ledger[entry:]
    cost = {
        "seconds": time.perf_counter() - started,
        "samples": sum(v.plan.rows for v in votes),
        "forward_passes": sum(step.forward_passes for step in steps),
    }
    names = [element.name for element in features]
    keys = [e.ref if names.count(e.name) > 1 else e.name for e in features]
    return {key: v.summary() or {} for key, v in zip(keys, votes, strict=True)}, cost


def k_rows(
    summaries: dict[str, dict[str, Any]], ks: list[int], signs: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Rows of the table of accuracy against k and signs: over #S where attacked, else over all."""
    from regroup_pipelines.results.accuracy import regroup_accuracy

    return [
        {
            "k": k,
            "signs": choice,
            **{
                name: regroup_accuracy(
                    s, "success" if s["attacked"] else "all", k, choice
                ).describe()
                for name, s in summaries.items()
            },
        }
        for choice in signs
        for k in ks
    ]


def main(config: RescoreConfig) -> dict[str, Any]:
    """Score stored features against a bank, or banks, and print accuracy against k and signs."""
    from regroup_pipelines.banks.comparison import asks_for_others
    from regroup_pipelines.steps.scoring import check_k, voting_taps
    from regroup_pipelines.steps.session import Job
    from regroup_store.kinds.banks import read_bank

    with Job(config, create=False) as job:
        bank = read_bank(job.store, config.bank)
        taps = voting_taps(bank, config.voting_taps)
        ks = [check_k(k, taps) for k in config.k] or list(range(1, len(taps) + 1))
        features = find_features(job, bank, config.features)
        shown = _banks if asks_for_others(config) else _bank
        rows, cost = shown(job, bank, features, config, ks)
        return {"bank": bank.ref, "rows": rows, "cost": cost, "steps": job.summary()}


Shown = tuple[list[dict[str, Any]], dict[str, Any]]


def _bank(
    job: Job, bank: StoredBank, features: list[BlockElement], config: RescoreConfig, ks: list[int]
) -> Shown:
    """The table against the bank itself."""
    from regroup_pipelines.render.terminal import k_table, print_line, show

    summaries, cost = rescore(job, bank, features, config)
    rows = k_rows(summaries, ks, config.signs)
    show(k_table(rows, list(summaries)), config.json)
    print_line(cost_line(cost), config.json)
    return rows, cost


def _banks(
    job: Job, bank: StoredBank, features: list[BlockElement], config: RescoreConfig, ks: list[int]
) -> Shown:
    """The table against banks of other recipes."""
    from regroup_pipelines.banks.comparison import compare, variant_rows, variant_table
    from regroup_pipelines.render.terminal import print_line, show

    variants, cost = compare(job, bank, features, config)
    rows = variant_rows(variants, ks, config.signs)
    show(variant_table(rows, list(variants[0].summaries), config.bootstrap), config.json)
    print_line(cost_line(cost), config.json)
    return rows, cost


def cost_line(cost: dict[str, Any]) -> str:
    """What the re-scoring cost, in one line."""
    banks = f" against {cost['banks']} banks" if "banks" in cost else ""
    return (
        f"{cost['forward_passes']} forward passes: {cost['samples']} samples re-scored{banks} from "
        f"the store in {cost['seconds']:.1f} s"
    )


if __name__ == "__main__":
    from regroup_pipelines.cli import run_command

    run_command("rescore")
