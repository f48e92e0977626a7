"""Reading and nothing else: a step of benchmarks/v50k.py, for workers to import."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

from regroup_cluster.dispatch.blocks import BlockReport
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store


@lru_cache(maxsize=1)
def opened(store_uri: str, features_ref: str) -> BlockElement:
    """The features, which stay open between blocks: their arrays' metadata is read once."""
    return BlockElement.open(open_store(store_uri), "features", features_ref)


@dataclass(frozen=True)
class ReadJob:
    """Reads and checks every array of a block and does nothing with it; picklable."""

    store_uri: str
    features_ref: str

    def __call__(self, block: int) -> BlockReport:
        """Read `block`."""
        started = time.perf_counter()
        element = opened(self.store_uri, self.features_ref)
        for path, _ in element.prefetched([(spec.path, block) for spec in element.arrays]):
            element.read_array(path, block)
        seconds, rows = time.perf_counter() - started, element.plan.size(block)
        return BlockReport(block, False, rows, 0, 0, seconds, {"read": seconds})
