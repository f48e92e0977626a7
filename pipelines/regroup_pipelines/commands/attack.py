"""Attack the correctly classified samples of a dataset."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from regroup_pipelines.configs.options import ClusterOptions
from regroup_pipelines.render.terminal import print_line
from regroup_pipelines.results.attack_summary import attack_summary, summary_lines
from regroup_pipelines.schema.attack_options import attack_spec
from regroup_pipelines.steps.attacking import attack_index, check_attackable, correct_samples
from regroup_pipelines.steps.bank_labels import network_on
from regroup_pipelines.steps.extraction import extract_index
from regroup_pipelines.steps.indexing import index_dataset
from regroup_pipelines.steps.network import open_network
from regroup_pipelines.steps.session import Session

if TYPE_CHECKING:
    from regroup_pipelines.configs.steps import AttackConfig
    from regroup_pipelines.json_types import JsonObject


def main(config: AttackConfig) -> JsonObject:
    """Index and extract what is missing, attack, and print the attack summary."""
    spec = attack_spec(config, config.parameters)
    network = open_network(config)
    check_attackable(network, spec)
    options = replace(config, block_rows=config.block_rows or ClusterOptions.block_rows)
    with Session(options, allow_missing=config.allow_missing, strict=config.strict) as session:
        index = index_dataset(session, config.dataset, label_column=config.label_column)
        network = network_on(session.store, network, index, config.classes)
        features = extract_index(session, network, index, config.batch)
        subset = correct_samples(session, index, features, config.limit, config.seed)
        rows = config.block_rows or None
        element = attack_index(session, network, subset, spec, config.batch, rows)
        summary = attack_summary(element)
        for line in summary_lines(summary):
            print_line(line, config.json)
        return {
            "attack": repr(spec),
            "adversarials": element.ref,
            **summary.plain(),
            "steps": session.summary(),
        }
