"""Train the demo's network, into a file or a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from regroup_pipelines.errors import UsageError
from regroup_pipelines.steps.demo_model import train_demo_model, train_into_store

if TYPE_CHECKING:
    from regroup_pipelines.configs.studies import TrainDemoModelConfig
    from regroup_pipelines.json_types import JsonObject


def main(config: TrainDemoModelConfig) -> JsonObject:
    """Train the demo's network and save its weights."""
    if config.output is not None:
        return train_demo_model(Path(config.output), config.seed)
    if config.store is None:
        raise UsageError("name the weights file with --output, or a store with --store")
    return train_into_store(config.store, config.seed)
