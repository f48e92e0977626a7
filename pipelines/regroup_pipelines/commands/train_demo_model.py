"""Train the demo's network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from regroup_pipelines.errors import UsageError
from regroup_pipelines.steps.demo_model import _train_into, train_demo_model

if TYPE_CHECKING:
    from regroup_pipelines.configs.studies import TrainDemoModelConfig
    from regroup_pipelines.json_types import JsonObject


def main(config: TrainDemoModelConfig) -> JsonObject:
    """Train the demo's network."""
    if config.output is not None:
        return train_demo_model(Path(config.output), config.seed)
    if config.store is None:
        raise UsageError("name the weights file with --output, or a store with --store")
    return _train_into(config.store, config.seed)
