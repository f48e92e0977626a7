"""Indexing: the digests of the encoded images of one block of a listing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from regroup.images.depth import is_deep
from regroup_cluster.dispatch.blocks import BlockOutcome, BlockWork
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import encoded_digest
from regroup_store.format.store import open_store
from regroup_store.kinds.listings import DIGEST_COLUMNS, DIGESTS, Listing
from regroup_store.sources import DEFAULT_LARGEST, Source, open_source

if TYPE_CHECKING:
    from regroup_cluster.dispatch.stopwatch import BlockClock

# Images in memory at a time.
BATCH = 64
# In the report of a commit: how many images of the block have more than 8 bits per channel.
DEEP = "deep"


@dataclass(frozen=True)
class IndexingWork(BlockWork):
    """Computes the digests of the images of one listing, block by block.

    Attributes:
        store_uri: the store.
        listing_ref: the listing.
        digests_ref: the element that receives the digests.
        largest: bytes that one image may have.
    """

    store_uri: str
    listing_ref: str
    digests_ref: str
    largest: int = DEFAULT_LARGEST

    def open(self) -> IndexingWorker:
        """Open the store and the dataset's source."""
        return IndexingWorker(self)


class IndexingWorker:
    """Digests one block at a time; an image that cannot be read is a failed row."""

    def __init__(self, work: IndexingWork) -> None:
        store = open_store(work.store_uri)
        self._listing = Listing.open(store, work.listing_ref)
        self._element = BlockElement.open(store, DIGESTS, work.digests_ref)
        self._source = open_source(self._listing.source_spec, work.largest)

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        """Read and digest the images of `block`, and commit the digests."""
        with clock.phase("read"):
            listed = self._listing.rows(self._element.plan.span(block))
            outcomes, deep = digested(self._source, listed["locator"].to_pylist())
        errors = [str(o) if isinstance(o, OSError) else None for o in outcomes]
        columns = {
            "sample_id": listed["sample_id"],
            "status": ["ok" if error is None else "failed" for error in errors],
            "error": errors,
            "label": listed["label"],
            "digest": ["" if isinstance(o, OSError) else o for o in outcomes],
        }
        table = pa.table(columns, schema=DIGEST_COLUMNS)
        with clock.phase("write"):
            committed = self._element.write_block(block, {}, table, {DEEP: deep})
        return BlockOutcome(committed, len(errors), sum(error is not None for error in errors))


def digested(source: Source, locators: list[str]) -> tuple[list[str | OSError], int]:
    """Read images.

    Returns:
        The digest of each image, or why it cannot be read; and how many have more than 8 bits per
        channel.
    """
    digests: list[str | OSError] = []
    deep = 0
    for start in range(0, len(locators), BATCH):
        for item in source.read(locators[start : start + BATCH]):
            if isinstance(item, OSError):
                digests.append(item)
            else:
                digests.append(encoded_digest(item))
                deep += is_deep(item)
    return digests, deep
