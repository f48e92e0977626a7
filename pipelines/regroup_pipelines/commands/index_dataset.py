"""Index a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regroup_pipelines.steps.indexing import index_dataset
from regroup_pipelines.steps.session import Session

if TYPE_CHECKING:
    from regroup_pipelines.configs.steps import IndexConfig


def main(config: IndexConfig) -> dict[str, Any]:
    """Index one dataset."""
    with Session(config) as session:
        index = index_dataset(session, config.dataset, config.name)
        return {
            "index": index.ref,
            "samples": index.rows_count,
            "classes": list(index.class_names),
            "steps": session.summary(),
        }
