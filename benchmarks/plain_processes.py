"""The extract job without Ray in several processes at once: what more workers can bring here."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from benchmarks.alternating import Taken

if TYPE_CHECKING:
    from types import TracebackType

    from benchmarks.extract_job import Counted, SmallJob

THREADS = "OMP_NUM_THREADS"


class PlainProcesses:
    """`count` processes of one thread each, kept between runs; each does a part of the blocks."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        # A pool each, so that none does another's part.
        pools = [ProcessPoolExecutor(1, context, initializer=_begin) for _ in range(self._count)]
        self._pools = [self._stack.enter_context(pool) for pool in pools]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def run(self, job: SmallJob) -> Taken:
        """All blocks of `job`, spread over the processes in turn."""
        factory = job.features()
        started = time.perf_counter()
        parts = [range(first, job.blocks, self._count) for first in range(self._count)]
        pairs = zip(self._pools, parts, strict=True)
        running = [pool.submit(_loop, factory, list(part)) for pool, part in pairs]
        processor = sum(each.result() for each in running)
        return Taken(time.perf_counter() - started, processor_s=processor)


def _begin() -> None:
    """Before torch is imported."""
    os.environ[THREADS] = "1"


def _loop(factory: Counted, blocks: list[int]) -> float:
    """Processor seconds of the blocks."""
    from benchmarks.extract_job import plain_loop, processor_seconds, torch_threads

    with torch_threads(1):
        return processor_seconds(plain_loop(factory, blocks))
