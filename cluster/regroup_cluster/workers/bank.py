"""Bank building: the class mixtures of one tap, reduced by dask from stored accumulators."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from regroup.bank import add_mixture
from regroup_cluster.dispatch.blocks import BlockOutcome, BlockWork
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.features import accumulators_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from regroup.bank_samples import WeightedSamples
    from regroup_cluster.dispatch.stopwatch import BlockClock
    from regroup_store.kinds.banks import BankWriter


@dataclass(frozen=True, eq=False)
class BankWork(BlockWork):
    """Reduces features elements to the class mixtures of a bank; block n is tap number n.

    Attributes:
        store_uri: the store of the features.
        features_refs: the features elements.
        writer: of the bank.
        taps: names, in execution order.
        selections: the bank's samples in each of `features_refs`.
        num_classes: M.
        delta: see `regroup.bank.pmf`.
    """

    store_uri: str
    features_refs: tuple[str, ...]
    writer: BankWriter
    taps: tuple[str, ...]
    selections: tuple[WeightedSamples, ...]
    num_classes: int
    delta: float

    # A bank's taps have no commit records: a late second attempt would write over the first.
    duplicable: ClassVar[bool] = False

    def open(self) -> BankWorker:
        """Open the features that hold samples of the bank."""
        return BankWorker(self)


class BankWorker:
    """Reduces one tap at a time."""

    def __init__(self, work: BankWork) -> None:
        store = open_store(work.store_uri)
        self._work = work
        self._parts = [
            (BlockElement.open(store, "features", ref), selection)
            for ref, selection in zip(work.features_refs, work.selections, strict=True)
            if len(selection.rows)
        ]

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        """Write the mixtures of tap number `block`, (2, M, C) float64."""
        tap = self._work.taps[block]
        with clock.phase("reduce"):
            mixtures = np.sum([*self._mixtures(tap)], axis=0)
        with clock.phase("write"):
            self._work.writer.write_tap(tap, mixtures)
        return BlockOutcome(committed=True, samples=self._share(block))

    def _share(self, block: int) -> int:
        """Return the samples that a tap counts for, so that all taps together make each once."""
        samples, taps = sum(len(s.rows) for s in self._work.selections), len(self._work.taps)
        return samples * (block + 1) // taps - samples * block // taps

    def _mixtures(self, tap: str) -> Iterator[NDArray[np.float64]]:
        """Yield what each features element adds to the mixtures of `tap`, (2, M, C) float64."""
        for features, selection in self._parts:
            yield reduce_tap(features, tap, selection, self._work.num_classes, self._work.delta)


def reduce_tap(
    features: BlockElement, tap: str, selection: WeightedSamples, num_classes: int, delta: float
) -> NDArray[np.float64]:
    """Reduce one tap of features to class mixtures, (2, M, C) float64.

    Only blocks that hold selected rows are read, each verified against its commit record. Dask sums
    one run of blocks per CPU of the task, so memory depends on neither the number of samples nor
    the machine's cores.
    """
    # Here: dask takes a third of a second to import, and a command that finds its bank needs none.
    import dask.array as da
    from dask.delayed import delayed

    path = accumulators_path(tap)
    channels = next(spec.tail[-1] for spec in features.arrays if spec.path == path)
    shape = (2, num_classes, channels)

    def total(run: list[int]) -> NDArray[np.float64]:
        """Return what the blocks of `run` add to the mixtures, (1, 2, M, C) float64."""
        sums = np.zeros(shape)
        for _, block in features.prefetched([(path, block) for block in run]):
            span = features.plan.span(block)
            chosen = (selection.rows >= span.start) & (selection.rows < span.stop)
            accumulators = features.read_array(path, block)
            rows = selection.rows[chosen] - span.start
            if not np.array_equal(rows, np.arange(len(accumulators))):  # else a needless copy
                accumulators = accumulators[rows]
            labels, weights = selection.labels[chosen], selection.weights[chosen]
            add_mixture(sums, accumulators, labels, weights, delta)
        return sums[None]

    # A sum is as large as hundreds of samples: one per CPU, not one per block.
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    blocks = np.unique(selection.rows // features.plan.block_rows)
    runs = [run.tolist() for run in np.array_split(blocks, min(threads, len(blocks)))]
    totals = [da.from_delayed(delayed(total)(run), (1, *shape), np.float64) for run in runs]
    mixtures: NDArray[np.float64] = (
        da.concatenate(totals).sum(axis=0).compute(scheduler="threads", num_workers=threads)
    )
    return mixtures
