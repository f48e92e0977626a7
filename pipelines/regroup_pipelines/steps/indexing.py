"""Index a dataset: one row an image, with the digest of its bytes."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from regroup_cluster.workers.indexing import IndexingWork, digests_of
from regroup_pipelines.results.records import LedgerEntry
from regroup_store.format.element import BlockElement
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.kinds.listings import Listing
from regroup_store.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from regroup_pipelines.steps.session import Session
    from regroup_store.sources import Source


def dataset_name(dataset: str) -> str:
    """A short file-safe name for a dataset spec: `parquet:a/cifar10/test-*` -> `cifar10-test`."""
    kind, _, location = dataset.partition(":")
    if kind == "imagenet":  # the split, as if it were the folder
        split, _, root = location.partition(":")
        location = f"{root}/{split}"
    parts = [re.sub(r"\.\w+$", "", part) for part in location.split("/") if part][-2:]
    words = [kind, location] if kind == "digits" else parts
    slug = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(words)).strip("-").lower()
    return slug or kind


def index_dataset(session: Session, dataset: str, name: str | None = None) -> SampleIndex:
    """Read every image of `dataset` once and write its index; one that is there is kept.

    Images are read by tasks, block by block, and only where the dataset lists other than it did.
    An image that cannot be read keeps its row, with an empty digest: it becomes a failed row of
    whatever is made from the index.
    """
    started = time.perf_counter()
    source = open_source(dataset)
    name = name or dataset_name(dataset)
    with Listing.drafted(name, source) as draft:
        store = session.store  # after the dataset was found sound, and before the work
        listing = draft.write(store, {})
    digests = _digest(session, listing)
    known = {info.ref for info in store.elements("indexes")}
    rows = _IndexRows(listing, digests, source)
    index = SampleIndex.write(store, name, rows, source.class_names, source.spec)
    _log(session, index, rows.unreadable, index.ref not in known, started)
    return index


def _digest(session: Session, listing: Listing) -> BlockElement:
    """Have every image of `listing` read and digested, unless that was done.

    Raises GapError for blocks that were given up, whatever `--allow-missing` says: an index names
    the samples that would have to count as failed.
    """
    element = BlockElement.create(session.store, listing.digests_spec(), {})
    work = IndexingWork(session.store.uri, listing.ref, element.ref)
    session.fill_by_tasks(f"digest {listing.name}", element, work)
    if element.summary() is None:
        element.finalise({"rows": element.plan.rows})
    return element


class _IndexRows:
    """The rows of an index, a block at a time, counting those without a digest."""

    def __init__(self, listing: Listing, digests: BlockElement, source: Source) -> None:
        self._listing, self._digests, self._source = listing, digests, source
        self.unreadable = 0

    def __iter__(self) -> Iterator[pa.Table]:
        import pyarrow as pa

        for block in range(self._digests.plan.blocks):
            listed = self._listing.rows(self._digests.plan.span(block))
            digests = self._digests.read_table(block, ["digest"])["digest"].to_pylist()
            digests = self._tried_again(listed["locator"].to_pylist(), digests)
            self.unreadable += digests.count("")
            column = pa.array(digests, pa.string())
            yield listed.drop_columns("stamp").append_column(
                pa.field("digest", pa.string(), nullable=False), column
            )

    def _tried_again(self, locators: list[str], digests: list[str]) -> list[str]:
        """Read once more what could not be read: it may be mended though its stamp is the same."""
        bad = [row for row, digest in enumerate(digests) if not digest]
        found = digests_of(self._source, [locators[row] for row in bad])
        for row, digest in zip(bad, found, strict=True):
            digests[row] = "" if isinstance(digest, OSError) else digest
        return digests


def _log(
    session: Session, index: SampleIndex, unreadable: int, created: bool, started: float
) -> None:
    rows, seconds = index.rows_count, time.perf_counter() - started
    samples = rows if created else 0
    session.ledger.append(
        LedgerEntry(
            step="index",
            ref=index.ref,
            blocks=int(created),
            skipped=int(not created),
            samples=samples,
            failed=unreadable,
            forward_passes=0,
            seconds=seconds,
        )
    )
    state = "written" if created else "already in the store"
    warning = f", {unreadable} UNREADABLE images keep their rows" if unreadable else ""
    session.announce(
        f"index {index.ref}: {rows} images, {len(index.class_names)} classes, {state}{warning}"
    )
