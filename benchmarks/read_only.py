"""Work that only reads: a step of benchmarks/v50k.py, importable by workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regroup_cluster.dispatch.blocks import BlockOutcome, BlockWork
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store

if TYPE_CHECKING:
    from regroup_cluster.dispatch.stopwatch import BlockClock


@dataclass(frozen=True)
class ReadWork(BlockWork):
    """Work that reads and verifies every array of a block."""

    store_uri: str
    features_ref: str

    def open(self) -> ReadWorker:
        """Open the features."""
        return ReadWorker(self)


class ReadWorker:
    """A worker that keeps the features open between blocks, so that metadata is read once."""

    def __init__(self, work: ReadWork) -> None:
        self._element = BlockElement.open(open_store(work.store_uri), "features", work.features_ref)

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        """Read `block`."""
        element = self._element
        with clock.phase("read"):
            for path, _ in element.prefetched([(spec.path, block) for spec in element.arrays]):
                element.read_array(path, block)
        return BlockOutcome(committed=False, samples=element.plan.size(block))
