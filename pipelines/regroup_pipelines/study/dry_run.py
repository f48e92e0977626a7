"""What a run would do: its own code over a store that takes nothing, by a job that does nothing."""

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
    """The store at `uri`, or an empty one where there is none, that takes what is written to it
    into memory.

    Raises:
        StoreUsageError: something else is there.
    """
    backend = backend_for(uri)
    absent = isinstance(backend, LocalBackend) and not backend.root.exists()
    if absent or (_is_folder(backend) and not backend.children()):
        return Store(OverlayBackend(None, ObjectBackend(MemoryStore(), backend.uri)))
    below = open_store(uri, writable=False).backend
    return Store(OverlayBackend(below, ObjectBackend(MemoryStore(), below.uri)))


def held_indexes(store: Store) -> list[SampleIndex]:
    """The indexes that an overlaid store had before anything was written to it."""
    backend = store.backend
    below = backend.below if isinstance(backend, OverlayBackend) else backend
    held = Store(below) if below else None
    return [SampleIndex.open(held, e.ref) for e in held.elements("indexes")] if held else []


def _is_folder(backend: Backend) -> bool:
    return not isinstance(backend, LocalBackend) or backend.root.is_dir()


@dataclass
class DryRunSession(Session):
    """A job whose ledger says what would be done: `blocks` and `samples` are those missing.

    `unread`: how many images were to be digested and have a stand-in for their digest, in memory:
    all that a dry run makes of their dataset has another fingerprint than it is going to have.
    """

    unread: int = 0

    @cached_property
    def store(self) -> Store:
        """The store; nothing reaches it."""
        return overlaid(self.options.store)

    @property
    def on_gpus(self) -> bool:
        """Whether this machine has a GPU, where the options do not say: no cluster is joined."""
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
        """Enter the missing blocks into the ledger; digests get stand-ins, so that a plan goes on.

        Digesting reads every image: a dry run only lists them.
        """
        super().fill_by_tasks(step, element, work)
        if isinstance(work, IndexingWork):
            for block in element.missing():
                self.unread += self._stand_in(element, work.listing_ref, block)

    def _stand_in(self, element: BlockElement, listing_ref: str, block: int) -> int:
        """Commit a block of digests that nothing was read for, into memory; its rows."""
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
        """Enter the tasks into the ledger; raises `NotYetError`. Each reads all of its samples."""
        self._plan(step, ref, len(blocks), done, rows // len(blocks))
        raise NotYetError(step)

    def finish(
        self,
        step: str,
        element: BlockElement,
        summarise: Callable[[BlockElement], JsonObject],
    ) -> None:
        """Write the summary, into memory, of an element that is whole."""
        if not element.missing():
            super().finish(step, element, summarise)

    def announce(self, line: str) -> None:
        """Nothing: what it would say is not done."""

    def note(self, step: str, ref: str, skipped: int, started: float) -> None:  # noqa: ARG002
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
