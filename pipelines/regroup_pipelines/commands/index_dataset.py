"""Index a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.steps.indexing import index_dataset
from regroup_pipelines.steps.session import Session

if TYPE_CHECKING:
    from regroup_pipelines.configs.steps import IndexConfig
    from regroup_pipelines.json_types import JsonObject


def main(config: IndexConfig) -> JsonObject:
    """Index one dataset and report its size."""
    with Session(config) as session:
        index = index_dataset(session, config.dataset, config.name, config.label_column)
        return {
            "index": index.ref,
            "samples": index.rows_count,
            "classes": list(index.class_names),
            "steps": session.summary(),
        }
