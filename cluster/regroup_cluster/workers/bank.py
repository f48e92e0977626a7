"""Bank building: dask reduces one tap's stored accumulators; one Ray task a tap."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import dask.array as da
import numpy as np
from dask.delayed import delayed

from regroup.bank import add_mixture
from regroup_cluster.dispatch.blocks import BlockReport
from regroup_cluster.dispatch.stopwatch import Phases
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.features import accumulators_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from regroup.bank_samples import WeightedSamples
    from regroup_store.kinds.banks import BankWriter


@dataclass(frozen=True, eq=False)
class ReductionJob:
    """Reduces tap number `block` of features elements into its class mixtures; picklable.

    `selections`: the samples in each of `features_refs`.
    """

    store_uri: str
    features_refs: tuple[str, ...]
    writer: BankWriter
    taps: tuple[str, ...]
    selections: tuple[WeightedSamples, ...]
    num_classes: int
    delta: float

    # A bank's taps have no commit records: a late second attempt would write over the first.
    create_only: ClassVar[bool] = False

    def __call__(self, block: int) -> BlockReport:
        """Write the mixtures of tap `block`, (2, M, C) float64."""
        started, phases = time.perf_counter(), Phases()
        tap = self.taps[block]
        with phases("reduce"):
            mixtures = np.sum([*self._parts(tap)], axis=0)
        with phases("write"):
            self.writer.write_tap(tap, mixtures)
        return BlockReport(
            block=block,
            committed=True,
            samples=sum(len(selection.rows) for selection in self.selections),
            failed=0,
            forward_passes=0,
            seconds=time.perf_counter() - started,
            phases=phases.seconds,
        )

    def _parts(self, tap: str) -> Iterator[NDArray[np.float64]]:
        """What each features element adds to the mixtures of `tap`, (2, M, C) float64."""
        store = open_store(self.store_uri)
        for ref, selection in zip(self.features_refs, self.selections, strict=True):
            if len(selection.rows):
                features = BlockElement.open(store, "features", ref)
                yield reduce_tap(features, tap, selection, self.num_classes, self.delta)


def reduce_tap(
    features: BlockElement, tap: str, selection: WeightedSamples, num_classes: int, delta: float
) -> NDArray[np.float64]:
    """Class mixtures of one tap, (2, M, C) float64; dask sums a run of blocks for each CPU.

    Only blocks that hold selected rows are read, each verified against its commit record, as many
    at a time as the task has CPUs: memory depends on neither the samples nor the machine's cores.
    """
    path = accumulators_path(tap)
    channels = next(spec.tail[-1] for spec in features.arrays if spec.path == path)
    shape = (2, num_classes, channels)

    def total(run: list[int]) -> NDArray[np.float64]:
        """What the blocks of `run` add to the mixtures, (1, 2, M, C) float64."""
        sums = np.zeros(shape)
        for _, block in features.prefetched([(path, block) for block in run]):
            span = features.plan.span(block)
            chosen = (selection.rows >= span.start) & (selection.rows < span.stop)
            accumulators = features.read_array(path, block)
            rows = selection.rows[chosen] - span.start
            if not np.array_equal(rows, np.arange(len(accumulators))):  # else a copy for nothing
                accumulators = accumulators[rows]
            labels, weights = selection.labels[chosen], selection.weights[chosen]
            add_mixture(sums, accumulators, labels, weights, delta)
        return sums[None]

    # A sum is as large as hundreds of samples: one a CPU, not one a block.
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    blocks = np.unique(selection.rows // features.plan.block_rows)
    runs = [run.tolist() for run in np.array_split(blocks, min(threads, len(blocks)))]
    totals = [da.from_delayed(delayed(total)(run), (1, *shape), np.float64) for run in runs]
    mixtures: NDArray[np.float64] = (
        da.concatenate(totals).sum(axis=0).compute(scheduler="threads", num_workers=threads)
    )
    return mixtures
