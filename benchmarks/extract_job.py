"""An extract job with a small network and small images, with Ray and in one plain loop.

It is what benchmarks/overhead.py and benchmarks/workers.py time: cifar-resnet20 with random
weights, PNGs of 32 x 32 px in a Parquet file. Each run fills a new features element.
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
    """A Progress that shows nothing; failed blocks end the benchmark later."""

    def start(self, blocks: int) -> None:
        """Do nothing."""

    def update(self, report: BlockReport) -> None:
        """Do nothing."""

    def tick(self) -> None:
        """Do nothing."""

    def retry(self, block: int, reason: str) -> None:
        """Do nothing."""

    def failure(self, block: int, reason: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Between(Silent):
    """A Progress that processes a block in the driver after every dispatched block.

    Driver and worker alternate block by block, so other load of the machine affects both.

    Attributes:
        seconds: seconds of the driver's blocks so far.
        processor_s: processor seconds of the driver's blocks so far.
    """

    def __init__(self, plain: CountedWorker) -> None:
        self._plain, self.seconds, self.processor_s = plain, 0.0, 0.0

    def update(self, report: BlockReport) -> None:
        """Process the same block here.

        Raises:
            RuntimeError: it fails.
        """
        started = time.perf_counter()
        ours = measured(self._plain, report.block)
        self.seconds += time.perf_counter() - started
        self.processor_s += ours.phases[PROCESSOR]
        _check([ours], 1)


@dataclass(frozen=True)
class Counted(BlockWork):
    """Extraction whose workers measure the processor time of their blocks."""

    work: ExtractionWork

    def open(self) -> CountedWorker:
        """Build the worker."""
        return CountedWorker(self.work.open())


class CountedWorker:
    """A worker whose reports include processor seconds among the phases."""

    def __init__(self, worker: ExtractionWorker) -> None:
        self._worker = worker

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        """Process `block`."""
        before = time.process_time()
        outcome = self._worker.process(block, clock)
        clock.phases[PROCESSOR] = time.process_time() - before
        return outcome


class SmallJob:
    """A dataset, index and network below `folder`, to be extracted in blocks.

    Attributes:
        samples: samples per run.
        blocks: blocks per run.
        outside: for each dispatch, the share of the workers' time that was outside blocks.
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
        """Process all blocks in one loop in this process, with `threads` threads."""
        work = self.features()
        with torch_threads(threads):
            started = time.perf_counter()
            reports = plain_loop(work, range(self.blocks))
            seconds = time.perf_counter() - started
        return Taken(seconds, THIS_PROCESS, processor_seconds(reports))

    def on(self, pool: WorkerPool) -> Taken:
        """Dispatch all blocks to a pool whose processes are already running."""
        work = self.features()
        started = time.perf_counter()
        report = dispatch(pool, work, self.blocks, Silent())
        return self._taken(report, time.perf_counter() - started, pool)

    def cold(self, workers: int, cpus: int) -> Taken:
        """Dispatch all blocks, including the start of the processes; needs a Ray session."""
        started = time.perf_counter()
        with worker_pool(WorkerResources(workers, cpus, 0)) as pool:
            report = dispatch(pool, self.features(), self.blocks, Silent())
        seconds = time.perf_counter() - started
        return Taken(seconds, processor_s=processor_seconds(report.reports))

    def in_turn(self, pool: WorkerPool, threads: int) -> tuple[Taken, Taken]:
        """Dispatch to a pool of one worker, alternating block by block with a plain loop here.

        Each builds its worker once; this is part of the seconds of both.
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
        """Return the work that fills a new features element."""
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
    """Build the worker and process `blocks` one after the other, in this process."""
    worker, wanted = work.open(), list(blocks)
    reports = [measured(worker, block) for block in wanted]
    _check(reports, len(wanted))
    return reports


def dispatch(pool: WorkerPool, work: Counted, blocks: int, progress: Progress) -> DispatchReport:
    """Dispatch the first `blocks` blocks to `pool`.

    Raises:
        RuntimeError: a block failed.
    """
    report = pool.dispatch(work, range(blocks), RetryPolicy(), progress)
    _check(report.reports, blocks)
    return report


def processor_seconds(reports: Iterable[BlockReport]) -> float:
    """Sum the processor seconds of all blocks in their workers' processes."""
    return sum(each.phases[PROCESSOR] for each in reports)


def _check(reports: Sequence[BlockReport], blocks: int) -> None:
    done = [each for each in reports if each.committed and not each.failed]
    if len(done) != blocks:
        raise RuntimeError(f"only {len(done)} of {blocks} blocks were extracted: {reports}")


def write_images(path: Path, count: int) -> None:
    """Write a Parquet file of `count` different PNGs, with cyclic class labels."""
    random = np.random.default_rng(0)
    images = [_png(random.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(count)]
    table = pa.table({"image": images, "label": np.arange(count) % CLASSES})
    pq.write_table(table, path)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
