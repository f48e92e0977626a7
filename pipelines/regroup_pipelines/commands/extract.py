"""Extract features: one forward pass per image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.steps.bank_labels import network_on
from regroup_pipelines.steps.extraction import extract_index
from regroup_pipelines.steps.indexing import index_dataset
from regroup_pipelines.steps.network import open_network
from regroup_pipelines.steps.session import Session

if TYPE_CHECKING:
    from regroup_pipelines.configs.steps import ExtractConfig
    from regroup_pipelines.json_types import JsonObject


def main(config: ExtractConfig) -> JsonObject:
    """Index the dataset where needed, and extract the missing features."""
    network = open_network(config)
    with Session(config, allow_missing=config.allow_missing) as session:
        index = index_dataset(session, config.dataset, label_column=config.label_column)
        network = network_on(session.store, network, index, config.classes)
        element = extract_index(session, network, index, config.batch)
        return {
            "index": index.ref,
            "features": element.ref,
            **(element.summary() or {}),
            "taps": [name for name, _ in network.taps],
            "steps": session.summary(),
        }
