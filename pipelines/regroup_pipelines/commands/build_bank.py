"""Build a bank from clean training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.banks.build import build_bank
from regroup_pipelines.steps.bank_labels import network_on
from regroup_pipelines.steps.indexing import index_dataset
from regroup_pipelines.steps.network import open_network
from regroup_pipelines.steps.session import Session
from regroup_store.kinds.banks import bank_counts

if TYPE_CHECKING:
    from regroup_pipelines.configs.steps import BuildBankConfig
    from regroup_pipelines.json_types import JsonObject


def main(config: BuildBankConfig) -> JsonObject:
    """Index and extract what is missing, and build the bank."""
    network = open_network(config)
    with Session(config, allow_missing=config.allow_missing) as session:
        index = index_dataset(session, config.dataset, label_column=config.label_column)
        network = network_on(session.store, network, index, config.classes)
        bank = build_bank(session, network, index, config, config.batch)
        return {
            "index": index.ref,
            "bank": bank,
            "taps": [name for name, _ in network.taps],
            "samples": bank_counts(session.store, bank),
            "steps": session.summary(),
        }
