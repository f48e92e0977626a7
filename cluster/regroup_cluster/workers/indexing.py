"""The indexing task: digests of the encoded images of one block of a listing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from regroup_cluster.dispatch.blocks import BlockReport
from regroup_cluster.dispatch.stopwatch import Phases
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import encoded_digest
from regroup_store.format.store import open_store
from regroup_store.kinds.listings import DIGEST_COLUMNS, DIGESTS, Listing
from regroup_store.sources import Source, open_source

# Images held at a time.
BATCH = 64


@dataclass(frozen=True)
class DigestingJob:
    """Everything a task needs to digest blocks of one listing; picklable."""

    store_uri: str
    listing_ref: str
    digests_ref: str

    def __call__(self, block: int) -> BlockReport:
        """Read, digest and commit the images of `block`; the source is opened once a process."""
        return _worker(self).process(block)


@lru_cache(maxsize=1)
def _worker(job: DigestingJob) -> DigestingWorker:
    return DigestingWorker(job)


class DigestingWorker:
    """Digests one block at a time. An image that cannot be read is a failed row."""

    def __init__(self, job: DigestingJob) -> None:
        store = open_store(job.store_uri)
        self._listing = Listing.open(store, job.listing_ref)
        self._element = BlockElement.open(store, DIGESTS, job.digests_ref)
        self._source = open_source(self._listing.source_spec)

    def process(self, block: int) -> BlockReport:
        """Digest and commit `block`."""
        started, phases = time.perf_counter(), Phases()
        with phases("read"):
            listed = self._listing.rows(self._element.plan.span(block))
            outcomes = digests_of(self._source, listed["locator"].to_pylist())
        errors = [str(o) if isinstance(o, OSError) else None for o in outcomes]
        columns = {
            "sample_id": listed["sample_id"],
            "status": ["ok" if error is None else "failed" for error in errors],
            "error": errors,
            "label": listed["label"],
            "digest": ["" if isinstance(o, OSError) else o for o in outcomes],
        }
        table = pa.table(columns, schema=DIGEST_COLUMNS)
        with phases("write"):
            committed = self._element.write_block(block, {}, table, {})
        return BlockReport(
            block=block,
            committed=committed,
            samples=len(errors),
            failed=sum(error is not None for error in errors),
            forward_passes=0,
            seconds=time.perf_counter() - started,
            phases=phases.seconds,
        )


def digests_of(source: Source, locators: list[str]) -> list[str | OSError]:
    """The digest of each image, or why it cannot be read."""
    batches = (locators[start : start + BATCH] for start in range(0, len(locators), BATCH))
    return [
        item if isinstance(item, OSError) else encoded_digest(item)
        for batch in batches
        for item in source.read(batch)
    ]
