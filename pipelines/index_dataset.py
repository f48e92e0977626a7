"""Index a dataset: one row an image, with the digest of its bytes."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.options import ClusterOptions

if TYPE_CHECKING:
    from pipelines.job import Job
    from store.indexes import SampleIndex
    from store.sources import Source, SourceRow

# Images read and digested at a time: bounds memory, whatever the size of the dataset.
READ_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class IndexConfig(ClusterOptions):
    """Index a dataset: a row an image with its id, label and digest.

    Example: regroup index-dataset --store runs --dataset imagefolder:photos/val
    """

    dataset: str
    """digits, digits:train, digits:val, imagefolder:PATH or parquet:GLOB; these two may be
    s3:// URIs."""
    name: str | None = None
    """Name of the index (default: from the dataset)."""


def dataset_name(dataset: str) -> str:
    """A short file-safe name for a dataset spec: `parquet:a/cifar10/test-*` -> `cifar10-test`."""
    kind, _, location = dataset.partition(":")
    parts = [re.sub(r"\.\w+$", "", part) for part in location.split("/") if part][-2:]
    words = [kind, location] if kind == "digits" else parts
    slug = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(words)).strip("-").lower()
    return slug or kind


def index_dataset(job: Job, dataset: str, name: str | None = None) -> SampleIndex:
    """Read every image of `dataset` once and write its index; one that is there is kept.

    An image that cannot be read keeps its row, with an empty digest: it becomes a failed row of
    whatever is made from the index.
    """
    import pyarrow as pa

    from store.indexes import COLUMNS, SampleIndex
    from store.sources import open_source

    started = time.perf_counter()
    source = open_source(dataset)
    rows = source.rows()
    store = job.store  # after the dataset was found, and before the work
    starts = range(0, len(rows), READ_ROWS)
    digests = [d for start in starts for d in _digests(source, rows[start : start + READ_ROWS])]
    known = {info.ref for info in store.elements("indexes")}
    columns = {
        "sample_id": [row.sample_id for row in rows],
        "label": [row.label for row in rows],
        "locator": [row.locator for row in rows],
        "digest": digests,
    }
    table = pa.table(columns, schema=COLUMNS)
    name = name or dataset_name(dataset)
    index = SampleIndex.write(store, name, table, source.class_names, source.spec)
    created = index.ref not in known
    _log(job, index, digests, created, started)
    return index


def _digests(source: Source, rows: list[SourceRow]) -> list[str]:
    from store.fingerprint import encoded_digest

    data = source.read([row.locator for row in rows])
    return ["" if isinstance(item, OSError) else encoded_digest(item) for item in data]


def _log(job: Job, index: SampleIndex, digests: list[str], created: bool, started: float) -> None:
    from pipelines.job import LedgerEntry, log

    unreadable = digests.count("")
    seconds = time.perf_counter() - started
    samples = len(digests) if created else 0
    job.ledger.append(
        LedgerEntry(
            "index", index.ref, int(created), int(not created), samples, unreadable, 0, seconds
        )
    )
    state = "written" if created else "already in the store"
    warning = f", {unreadable} UNREADABLE images keep their rows" if unreadable else ""
    log(
        f"index {index.ref}: {len(digests)} images, {len(index.class_names)} classes, "
        f"{state}{warning}"
    )


def main(config: IndexConfig) -> dict[str, Any]:
    """Index one dataset."""
    from pipelines.job import Job

    with Job(config) as job:
        index = index_dataset(job, config.dataset, config.name)
        return {
            "index": index.ref,
            "samples": index.rows_count,
            "classes": list(index.class_names),
            "steps": job.summary(),
        }


if __name__ == "__main__":
    from pipelines.cli import run_command

    run_command("index-dataset")
