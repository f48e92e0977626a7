"""The extract job of a small network over small images, with Ray and in one plain loop.

What benchmarks/overhead.py and benchmarks/workers.py time. cifar-resnet20 with random weights, PNGs
of 32 x 32 px in a Parquet file; each run fills features of its own.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.machine import torch_threads
from benchmarks.paired import THIS_PROCESS, Taken
from benchmarks.pipeline import write_index
from regroup_cluster.dispatch.actor_pool import worker_pool
from regroup_cluster.dispatch.attempt import measured
from regroup_cluster.dispatch.blocks import BlockWork, RetryPolicy
from regroup_cluster.resources import WorkerResources
from regroup_cluster.workers.extraction import ExtractionWork
from regroup_cluster.workers.images import IndexSpec
from regroup_pipelines.configs.options import ModelOptions
from regroup_pipelines.steps.extraction import index_features_spec
from regroup_pipelines.steps.network import open_network
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from regroup_cluster.dispatch.actor_pool import WorkerPool
    from regroup_cluster.dispatch.blocks import BlockOutcome, BlockReport, DispatchReport
    from regroup_cluster.dispatch.progress import Progress
    from regroup_cluster.dispatch.stopwatch import BlockClock
    from regroup_cluster.workers.extraction import ExtractionWorker

CLASSES, BATCH = 10, 64
PROCESSOR = "processor"


class Silent:
    """A Progress that shows nothing; a block that fails ends the benchmark later."""

    def start(self, blocks: int) -> None:
        """Say nothing."""

    def update(self, report: BlockReport) -> None:
        """Say nothing."""

    def tick(self) -> None:
        """Say nothing."""

    def retry(self, block: int, reason: str) -> None:
        """Say nothing."""

    def failure(self, block: int, reason: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Say nothing."""


class Between(Silent):
    """A Progress that has the driver do a block of a plain loop after every block of the dispatch.

    Driver and worker take turns of a block each, so what the machine does besides meets both.

    Attributes:
        seconds, processor_s: of the plain loop's blocks so far.
    """

    def __init__(self, plain: CountedWorker) -> None:
        self._plain, self.seconds, self.processor_s = plain, 0.0, 0.0

    def update(self, report: BlockReport) -> None:
        """Do the same block here; RuntimeError where it does not come out."""
        started = time.perf_counter()
        ours = measured(self._plain, report.block)
        self.seconds += time.perf_counter() - started
        self.processor_s += ours.phases[PROCESSOR]
        _check([ours], 1)


@dataclass(frozen=True)
class Counted(BlockWork):
    """Extraction whose workers count the processor time of their blocks."""

    work: ExtractionWork

    def open(self) -> CountedWorker:
        """Build the worker."""
        return CountedWorker(self.work.open())


class CountedWorker:
    """A worker whose reports have processor seconds beside the phases."""

    def __init__(self, worker: ExtractionWorker) -> None:
        self._worker = worker

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        """Process `block`."""
        before = time.process_time()
        outcome = self._worker.process(block, clock)
        clock.phases[PROCESSOR] = time.process_time() - before
        return outcome


class SmallJob:
    """Images, index and network below `folder`; `blocks` blocks of `block_rows` samples.

    `decode_workers`: threads that decode beside the network's, see `decode_threads`.

    Attributes:
        samples: of one run.
        blocks: of one run.
        outside: shares of the workers' time that each run's dispatch spent outside their blocks.
    """

    def __init__(
        self,
        folder: Path,
        blocks: int,
        block_rows: int,
        decode_workers: int | Literal["auto"] = "auto",
    ) -> None:
        self._decode_workers = decode_workers
        self.samples, self.blocks, self._block_rows = blocks * block_rows, blocks, block_rows
        self.outside: list[float] = []
        write_images(folder / "images.parquet", self.samples)
        self._store = open_store(str(folder / "store"), create=True)
        self._index = write_index(self._store, f"parquet:{folder}/images.parquet", self.samples)
        self._network = open_network(ModelOptions(model="cifar-resnet20", weights="random"))
        self._runs = 0

    def plain(self, threads: int) -> Taken:
        """One loop over all blocks in this process, with so many threads."""
        work = self.features()
        with torch_threads(threads):
            started = time.perf_counter()
            reports = plain_loop(work, range(self.blocks))
            seconds = time.perf_counter() - started
        return Taken(seconds, THIS_PROCESS, processor_seconds(reports))

    def on(self, pool: WorkerPool) -> Taken:
        """The dispatch of all blocks to a pool whose processes run already."""
        work = self.features()
        started = time.perf_counter()
        report = dispatch(pool, work, self.blocks, Silent())
        return self._taken(report, time.perf_counter() - started, pool)

    def cold(self, workers: int, cpus: int) -> Taken:
        """As `on`, with the start of the processes. Needs a session of Ray."""
        started = time.perf_counter()
        with worker_pool(WorkerResources(workers, cpus, 0)) as pool:
            report = dispatch(pool, self.features(), self.blocks, Silent())
        seconds = time.perf_counter() - started
        return Taken(seconds, processor_s=processor_seconds(report.reports))

    def in_turn(self, pool: WorkerPool, threads: int) -> tuple[Taken, Taken]:
        """The dispatch to a pool of one worker, and the plain loop here, block by block in turn.

        Each builds its worker once; that is part of either's seconds.
        """
        ours, theirs = self.features(), self.features()
        with torch_threads(threads):
            started = time.perf_counter()
            between = Between(theirs.open())
            built = time.perf_counter() - started
            started = time.perf_counter()
            report = dispatch(pool, ours, self.blocks, between)
            seconds = time.perf_counter() - started - between.seconds
        taken = self._taken(report, seconds, pool)
        return taken, Taken(built + between.seconds, None, between.processor_s)

    def _taken(self, report: DispatchReport, seconds: float, pool: WorkerPool) -> Taken:
        workers = pool.resources.workers
        busy = sum(each.seconds for each in report.reports) / workers
        self.outside.append(1 - busy / seconds)
        peak = workers * max(each.peak_rss_bytes for each in report.reports)
        return Taken(seconds, peak, processor_seconds(report.reports))

    def features(self) -> Counted:
        """Return the work that fills features that are not there yet."""
        self._runs += 1
        description = self._network.description | {"run": self._runs}
        network = replace(self._network, description=description)
        spec = index_features_spec(network, self._index, self._block_rows)
        element = BlockElement.create(self._store, spec, {})
        work = ExtractionWork(
            store_uri=self._store.uri,
            features_ref=element.ref,
            images=IndexSpec(self._index.ref, decode_workers=self._decode_workers),
            model=network.spec,
            policy=network.policy,
            batch=BATCH,
            device="cpu",
        )
        return Counted(work)


def plain_loop(work: Counted, blocks: Iterable[int]) -> list[BlockReport]:
    """Build the worker and do `blocks` one after the other, in this process."""
    worker, wanted = work.open(), list(blocks)
    reports = [measured(worker, block) for block in wanted]
    _check(reports, len(wanted))
    return reports


def dispatch(pool: WorkerPool, work: Counted, blocks: int, progress: Progress) -> DispatchReport:
    """Have `pool` do the first `blocks` blocks; RuntimeError where one is not done."""
    report = pool.dispatch(work, range(blocks), RetryPolicy(), progress)
    _check(report.reports, blocks)
    return report


def processor_seconds(reports: Iterable[BlockReport]) -> float:
    """Of all blocks, in their workers' processes."""
    return sum(each.phases[PROCESSOR] for each in reports)


def _check(reports: Sequence[BlockReport], blocks: int) -> None:
    done = [each for each in reports if each.committed and not each.failed]
    if len(done) != blocks:
        raise RuntimeError(f"only {len(done)} of {blocks} blocks were extracted: {reports}")


def write_images(path: Path, count: int) -> None:
    """A Parquet file of `count` PNGs, each another, their classes in turn."""
    random = np.random.default_rng(0)
    images = [_png(random.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(count)]
    table = pa.table({"image": images, "label": np.arange(count) % CLASSES})
    pq.write_table(table, path)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
