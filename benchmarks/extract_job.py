"""The extract job of a small network over small images, with Ray and in one plain loop.

What benchmarks/overhead.py and benchmarks/workers.py time. cifar-resnet20 with random weights, PNGs
of 32 x 32 px in a Parquet file; each run fills features of its own.
"""

from __future__ import annotations

import io
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.alternating import Taken
from benchmarks.machine import forget_peak, peak_bytes
from benchmarks.pipeline import write_index
from cluster.dispatch import RetryPolicy
from cluster.extraction import ExtractionJob
from cluster.pool import worker_pool
from cluster.resources import WorkerResources
from pipelines.extract import index_features_spec
from pipelines.network import open_network
from pipelines.options import ModelOptions
from store.element import BlockElement
from store.stores import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.dispatch import BlockReport, DispatchReport
    from cluster.pool import WorkerPool

CLASSES, BATCH = 10, 64


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


class SmallJob:
    """Images, index and network below `folder`; `blocks` blocks of `block_rows` samples.

    Attributes:
        samples: of one run.
    """

    def __init__(self, folder: Path, blocks: int, block_rows: int) -> None:
        self.samples, self._blocks, self._block_rows = blocks * block_rows, blocks, block_rows
        write_images(folder / "images.parquet", self.samples)
        self._store = open_store(str(folder / "store"), create=True)
        self._index = write_index(self._store, f"parquet:{folder}/images.parquet", self.samples)
        self._network = open_network(ModelOptions(model="cifar-resnet20", weights="random"))
        self._runs = 0

    def plain(self, threads: int) -> Taken:
        """One loop over all blocks in this process, with so many threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        factory = self._features()
        forget_peak()
        started = time.perf_counter()
        worker = factory()
        reports = [worker.process(block) for block in range(self._blocks)]
        seconds = time.perf_counter() - started
        torch.set_num_threads(before)
        _check(reports, self._blocks)
        return Taken(seconds, peak_bytes())

    def with_ray(self, workers: int, cpus: int, *, warm: bool = True) -> Taken:
        """The dispatch of all blocks; `warm`: to workers whose processes run already.

        Needs a session of Ray (`cluster.session.ray_session`).
        """
        with worker_pool(WorkerResources(workers, cpus, 0)) as pool:
            if warm:
                self._dispatch(pool, workers)
            factory = self._features()
            started = time.perf_counter()
            report = _dispatch(pool, factory, self._blocks)
            seconds = time.perf_counter() - started
        _check(report.reports, self._blocks)
        peak = workers * max(each.peak_rss_bytes for each in report.reports)
        return Taken(seconds, peak)

    def _dispatch(self, pool: WorkerPool, blocks: int) -> None:
        _check(_dispatch(pool, self._features(), blocks).reports, blocks)

    def _features(self) -> ExtractionJob:
        """A worker's factory for features that are not there yet."""
        self._runs += 1
        description = self._network.description | {"run": self._runs}
        network = replace(self._network, description=description)
        spec = index_features_spec(network, self._index, self._block_rows)
        element = BlockElement.create(self._store, spec, {})
        return ExtractionJob(
            store_uri=self._store.uri,
            features_ref=element.ref,
            images_kind="index",
            images_ref=self._index.ref,
            model=network.spec,
            policy=network.policy,
            batch=BATCH,
            device="cpu",
        )


def _dispatch(pool: WorkerPool, factory: ExtractionJob, blocks: int) -> DispatchReport:
    return pool.dispatch(factory, range(blocks), RetryPolicy(), Silent())


def _check(reports: tuple[BlockReport, ...] | list[BlockReport], blocks: int) -> None:
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
