"""Evaluate a network and a bank: extract what is missing, score it, print the accuracy table."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from regroup_pipelines.render.grids import accuracy_grid
from regroup_pipelines.render.terminal import show
from regroup_pipelines.results.accuracy import accuracy_row, chosen_k, tap_accuracy
from regroup_pipelines.results.counts import VoteSummary
from regroup_pipelines.results.records import ChosenK
from regroup_pipelines.steps.attacking import check_reliable
from regroup_pipelines.steps.bank_labels import (
    check_bank_names,
    check_labels,
    network_of_bank,
)
from regroup_pipelines.steps.extraction import extract_adversarials, extract_index
from regroup_pipelines.steps.indexing import index_dataset
from regroup_pipelines.steps.network import open_network
from regroup_pipelines.steps.scoring import check_k, check_network, score
from regroup_pipelines.steps.session import Session, warn_missing
from regroup_pipelines.steps.votes import voting_taps
from regroup_store.format.element import BlockElement
from regroup_store.kinds.banks import read_bank

if TYPE_CHECKING:
    from regroup_pipelines.configs.steps import EvaluateConfig
    from regroup_pipelines.json_types import JsonObject


def _adversarials(session: Session, ref: str) -> BlockElement:
    """Open the named adversarials; warn about missing samples, and attacks that could not work."""
    element = BlockElement.open(session.store, "adversarials", ref)
    warn_missing(f"evaluate {element.name}", element)
    check_reliable(session, element)
    return element


def main(config: EvaluateConfig) -> JsonObject:
    """Extract and score the dataset and the named adversarials; print the accuracy table."""
    with Session(
        config, create=False, allow_missing=config.allow_missing, strict=config.strict
    ) as session:
        bank = read_bank(session.store, config.bank)
        taps = voting_taps(bank, config.voting_taps)
        if config.k is not None:
            check_k(config.k, taps)
        network = open_network(config)
        if config.classes == "all":
            check_network(bank, network)
        attacked = [_adversarials(session, ref) for ref in config.adversarials]
        index = index_dataset(session, config.dataset, label_column=config.label_column)
        network = network_of_bank(network, bank, index, config.classes)
        check_network(bank, network)
        check_bank_names(bank, network)
        for element in attacked:
            check_labels(session.store, element, network)
        features = [extract_index(session, network, index, config.batch)]
        features += [extract_adversarials(session, network, a, config.batch) for a in attacked]
        votes = [score(session, f, bank, config) for f in features]
        summaries = [VoteSummary.of(v) for v in votes]
        rule, k = chosen_k(summaries[0], config.threshold, config.k)
        rows = [
            accuracy_row(v.name, s, k, config.signs) for v, s in zip(votes, summaries, strict=True)
        ]
        show(accuracy_grid(rows), config.json)
        return {
            "bank": bank.ref,
            "votes": [v.ref for v in votes],
            "rule": ChosenK(**asdict(rule)).plain(),
            "rows": [row.plain() for row in rows],
            "tap_accuracy": dict(zip(taps, _own_accuracy(summaries[0]), strict=True)),
            "steps": session.summary(),
        }


def _own_accuracy(summary: VoteSummary) -> list[float]:
    return [round(float(a), 4) for a in np.asarray(tap_accuracy(summary.all))]
