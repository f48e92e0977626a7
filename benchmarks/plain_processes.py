"""The extract job without Ray in several processes at once: an upper bound for more workers."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.paired import Taken
from regroup.kernels.allocator import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.extract_job import Counted, SmallJob

THREADS = "OMP_NUM_THREADS"


@contextmanager
def plain_processes(count: int) -> Iterator[PlainProcesses]:
    """Start `count` processes with one thread each, and end them on exit."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        # One pool per process, so that none takes another's part.
        pools = [ProcessPoolExecutor(1, context, initializer=_begin) for _ in range(count)]
        yield PlainProcesses([stack.enter_context(pool) for pool in pools])


@dataclass(frozen=True)
class PlainProcesses:
    """Processes with one thread each, kept between runs; each processes a part of the blocks."""

    pools: list[ProcessPoolExecutor]

    def run(self, job: SmallJob) -> Taken:
        """Process all blocks of `job`, distributed cyclically over the processes."""
        work = job.features()
        started = time.perf_counter()
        count = len(self.pools)
        parts = [range(first, job.blocks, count) for first in range(count)]
        pairs = zip(self.pools, parts, strict=True)
        running = [pool.submit(_loop, work, list(part)) for pool, part in pairs]
        processor = sum(each.result() for each in running)
        return Taken(time.perf_counter() - started, processor_s=processor)


def _begin() -> None:
    """Set the threads before torch is imported, and keep freed memory as workers do."""
    os.environ[THREADS] = "1"
    keep_freed_memory()


def _loop(work: Counted, blocks: list[int]) -> float:
    """Process the blocks and return their processor seconds."""
    from benchmarks.extract_job import plain_loop, processor_seconds
    from benchmarks.machine import torch_threads

    with torch_threads(1):
        return processor_seconds(plain_loop(work, blocks))
