"""Dry run: the code of a real run over an in-memory overlay store, without dispatching blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from obstore.store import MemoryStore

from regroup_cluster.workers.indexing import IndexingWork
from regroup_pipelines.results.records import LedgerEntry
from regroup_pipelines.steps.session import NotYetError, Session
from regroup_store.backends.local import LocalBackend
from regroup_store.backends.object_store import ObjectBackend
from regroup_store.backends.open import backend_for
from regroup_store.backends.overlay import OverlayBackend
from regroup_store.format.store import Store, open_store
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.kinds.listings import DIGEST_COLUMNS, Listing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from regroup_cluster.dispatch.blocks import BlockWork, DispatchReport
    from regroup_cluster.resources import WorkerResources
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.backends.base import Backend
    from regroup_store.format.element import BlockElement


def overlaid(uri: str) -> Store:
    """Open the store at `uri` (empty where there is none) with all writes going to memory.

    Raises:
        StoreUsageError: something other than a store is there.
    """
    backend = backend_for(uri)
    absent = isinstance(backend, LocalBackend) and not backend.root.exists()
    if absent or (_is_folder(backend) and not backend.children()):
        return Store(OverlayBackend(None, ObjectBackend(MemoryStore(), backend.uri)))
    below = open_store(uri, writable=False).backend
    return Store(OverlayBackend(below, ObjectBackend(MemoryStore(), below.uri)))


def held_indexes(store: Store) -> list[SampleIndex]:
    """Return the indexes that an overlaid store held before the dry run wrote to it."""
    backend = store.backend
    below = backend.below if isinstance(backend, OverlayBackend) else backend
    held = Store(below) if below else None
    return [SampleIndex.open(held, e.ref) for e in held.elements("indexes")] if held else []


def _is_folder(backend: Backend) -> bool:
    return not isinstance(backend, LocalBackend) or backend.root.is_dir()


@dataclass
class DryRunSession(Session):
    """A session that dispatches nothing; its ledger lists the missing blocks and samples.

    Attributes:
        unread: number of images that have a placeholder instead of their digest. Everything that
            the dry run makes from such a dataset has another fingerprint than in a real run.
    """

    unread: int = 0

    @cached_property
    def store(self) -> Store:
        """The store as an overlay: writes go to memory."""
        return overlaid(self.options.store)

    @property
    def on_gpus(self) -> bool:
        """Whether GPUs are requested or, by default, this machine has one; joins no cluster."""
        import torch

        share = self.options.gpus_per_worker
        return torch.cuda.is_available() if share is None else bool(share)

    def _fill(
        self,
        step: str,
        element: BlockElement,
        dispatch: Callable[[list[int], int, int], DispatchReport],  # noqa: ARG002
    ) -> None:
        missing = element.missing()
        rows = sum(element.plan.size(block) for block in missing)
        self._plan(step, element.ref, len(missing), element.plan.blocks - len(missing), rows)

    def fill_by_tasks(self, step: str, element: BlockElement, work: BlockWork) -> None:
        """Enter the missing blocks into the ledger.

        Digesting would read every image, so a dry run commits placeholders as digests: the later
        steps can then be planned.
        """
        super().fill_by_tasks(step, element, work)
        if isinstance(work, IndexingWork):
            for block in element.missing():
                self.unread += self._commit_placeholders(element, work.listing_ref, block)

    def _commit_placeholders(self, element: BlockElement, listing_ref: str, block: int) -> int:
        """Commit a block of placeholder digests to memory; return its number of rows."""
        import pyarrow as pa

        listed = Listing.open(self.store, listing_ref).rows(element.plan.span(block))
        rows: int = listed.num_rows
        columns = {
            "sample_id": listed["sample_id"],
            "status": ["ok"] * rows,
            "error": [None] * rows,
            "label": listed["label"],
            "digest": ["not read"] * rows,
        }
        element.write_block(block, {}, pa.table(columns, schema=DIGEST_COLUMNS), {})
        return rows

    def run_tasks(
        self,
        step: str,
        work: BlockWork,  # noqa: ARG002
        blocks: Sequence[int],
        rows: int,
        done: int = 0,
        *,
        resources: WorkerResources | None = None,  # noqa: ARG002
        ref: str = "",
    ) -> DispatchReport:
        """Enter the tasks into the ledger.

        Raises:
            NotYetError: always, since the next step needs what the tasks would make.
        """
        self._plan(step, ref, len(blocks), done, rows)
        raise NotYetError(step)

    def finish(
        self,
        step: str,
        element: BlockElement,
        summarise: Callable[[BlockElement], JsonObject],
    ) -> None:
        """Write the summary of a complete element to memory."""
        if not element.missing():
            super().finish(step, element, summarise)

    def _tell_failed(self, step: str, element: BlockElement) -> None:
        """Log nothing: the run that made the element did."""

    def announce(self, line: str) -> None:
        """Log nothing: a dry run does not do what `line` reports."""

    def record_found(self, step: str, ref: str, skipped: int, started: float) -> None:  # noqa: ARG002
        """Enter into the ledger that a step found everything in the store."""
        self._plan(step, ref, 0, skipped, 0)

    def _plan(self, step: str, ref: str, blocks: int, held: int, samples: int) -> None:
        self.ledger.append(
            LedgerEntry(
                step=step,
                ref=ref,
                blocks=blocks,
                skipped=held,
                samples=samples,
                failed=0,
                forward_passes=0,
                seconds=0.0,
            )
        )
