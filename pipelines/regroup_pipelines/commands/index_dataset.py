"""Index a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regroup_pipelines.steps.indexing import index_dataset
from regroup_pipelines.steps.session import Job

if TYPE_CHECKING:
    from regroup_pipelines.configs.steps import IndexConfig


def main(config: IndexConfig) -> dict[str, Any]:
    """Index one dataset."""

    with Job(config) as job:
        index = index_dataset(job, config.dataset, config.name)
        return {
            "index": index.ref,
            "samples": index.rows_count,
            "classes": list(index.class_names),
            "steps": job.summary(),
        }
