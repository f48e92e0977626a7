"""Index a dataset: one row per image, with the digest of its bytes."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from regroup_cluster.workers.indexing import DEEP, IndexingWork, digested
from regroup_pipelines.configs.options import with_label_column
from regroup_pipelines.errors import UsageError
from regroup_pipelines.log import log
from regroup_pipelines.results.records import LedgerEntry
from regroup_pipelines.steps.failed_rows import Reasons
from regroup_store.format.element import BlockElement
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.kinds.listings import Listing
from regroup_store.sources import open_source, split_spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from regroup_pipelines.configs.options import ClusterOptions
    from regroup_pipelines.steps.session import Session
    from regroup_store.sources import Source

# Images whose depth is looked at where a store does not say how many are deep.
LOOKED_AT = 16
_NAMING = ("sample_id", "locator")


def dataset_name(dataset: str) -> str:
    """Return a short file-safe name for a dataset: `parquet:a/cifar10/test-*` -> `cifar10-test`."""
    kind, label_column, location = split_spec(dataset)
    if kind == "imagenet":  # the split, as if it were the folder
        split, _, root = location.partition(":")
        location = f"{root}/{split}"
    parts = [re.sub(r"\.\w+$", "", part) for part in location.split("/") if part][-2:]
    words = [kind, location] if kind == "digits" else parts
    words += [label_column] if label_column else []
    slug = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(words)).strip("-").lower()
    return slug or kind


def index_dataset(
    session: Session, dataset: str, name: str | None = None, label_column: str | None = None
) -> SampleIndex:
    """Write the index of `dataset`, reading every image once; an existing index is reused.

    Images are read by tasks, block by block, and only if the listing of the dataset has changed.
    An unreadable image keeps its row, with an empty digest, and becomes a failed row of everything
    that is made from the index. What of the dataset is no sample is counted, in the log and in the
    index's manifest.

    Raises:
        IncompleteError: no image can be read.
    """
    started = time.perf_counter()
    dataset = with_label_column(dataset, label_column)
    source = open_source(dataset, largest_sample(session.options))
    name = name or dataset_name(dataset)
    with Listing.drafted(name, source) as draft:
        store = session.store  # opened after the dataset has been checked
        listing = draft.write(store, {})
    left_out = source.left_out.recorded(), source.left_out.sentence()
    digests = _digest(session, listing)
    known = {info.ref for info in store.elements("indexes")}
    rows = _IndexRows(listing, digests, source)
    index = SampleIndex.write(
        store,
        name,
        rows,
        source.class_names,
        source.spec,
        {"left_out": left_out[0]},
        rows.has_deep,
    )
    _log(session, index, rows.unreadable, index.ref not in known, started)
    if left_out[1]:
        log(f"index {index.ref}: left out: {left_out[1]}")  # a dry run says so too
    rows.unreadable.refuse_all(f"index {index.ref}", index.rows_count)
    return index


def largest_sample(options: ClusterOptions) -> int:
    """Return how many bytes a single sample may cost.

    Raises:
        UsageError: less than 1 MB.
    """
    if options.sample_memory < 1:
        raise UsageError(f"--sample-memory {options.sample_memory}: give at least 1 MB")
    return options.sample_memory << 20


def _digest(session: Session, listing: Listing) -> BlockElement:
    """Digest every image of `listing`, unless that was done before.

    Raises:
        GapError: blocks failed. --allow-missing does not apply here, since the index has to name
            every sample, including those that would count as failed.
    """
    element = BlockElement.create(session.store, listing.digests_spec(), {})
    largest = largest_sample(session.options)
    work = IndexingWork(session.store.uri, listing.ref, element.ref, largest)
    session.fill_by_tasks(f"digest {listing.name}", element, work)
    if element.summary() is None:
        element.finalise({"rows": element.plan.rows})
    return element


class _IndexRows:
    """Iterates over the rows of an index, one block at a time.

    Attributes:
        unreadable: why images have no digest.
        deep: images of more than 8 bits per channel.
    """

    def __init__(self, listing: Listing, digests: BlockElement, source: Source) -> None:
        self._listing, self._digests, self._source = listing, digests, source
        self.unreadable = Reasons()
        self.deep = 0

    def has_deep(self) -> bool:
        """Whether images of more than 8 bits per channel were met."""
        return self.deep > 0

    def __iter__(self) -> Iterator[pa.Table]:
        import pyarrow as pa

        for block in range(self._digests.plan.blocks):
            listed = self._listing.rows(self._digests.plan.span(block))
            digests = self._digests.read_table(block, ["digest"])["digest"].to_pylist()
            self._count_deep(block, listed["locator"].to_pylist())
            digests = self._retried(listed, digests)
            column = pa.array(digests, pa.string())
            yield listed.drop_columns("stamp").append_column(
                pa.field("digest", pa.string(), nullable=False), column
            )

    def _count_deep(self, block: int, locators: list[str]) -> None:
        """Add the deep images of a block; earlier releases did not count, so some are looked at."""
        found = self._digests.commit(block).report.get(DEEP)
        if found is None and not block:
            found = digested(self._source, locators[:LOOKED_AT])[1]
        self.deep += int(str(found or 0))

    def _retried(self, listed: pa.Table, digests: list[str]) -> list[str]:
        """Read unreadable images once more: the cause may be gone though the stamp is unchanged."""
        bad = [row for row, digest in enumerate(digests) if not digest]
        named = (listed[name].to_pylist() for name in _NAMING)
        samples, locators = ([names[row] for row in bad] for names in named)
        found, deep = digested(self._source, locators)
        self.deep += deep
        for row, sample, digest in zip(bad, samples, found, strict=True):
            digests[row] = "" if isinstance(digest, OSError) else digest
            if isinstance(digest, OSError):
                self.unreadable.add(sample, str(digest))
        return digests


def _log(
    session: Session, index: SampleIndex, unreadable: Reasons, created: bool, started: float
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
            failed=unreadable.counts.total(),
            forward_passes=0,
            seconds=seconds,
        )
    )
    state = "written" if created else "already in the store"
    failed = unreadable.counts.total()
    warning = f", {failed} UNREADABLE images keep their rows: {unreadable}" if failed else ""
    session.announce(
        f"index {index.ref}: {rows} images, {len(index.class_names)} classes, {state}{warning}"
    )
