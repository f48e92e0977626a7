"""Ray's share of an extract job, and start-up of commands: `python -m benchmarks.overhead`.

- cifar-resnet20 over PNGs of 32 px in blocks of 1024, one worker with two threads, whose process is
  already running, over the same worker in one plain loop in the driver: at most 1.03. The two
  alternate block by block, so that a machine whose speed changes within seconds affects both. The
  share of the dispatch's seconds outside the worker's blocks, in the same runs: at most 3 %.
- for information, alternating job by job: two workers with one thread each, and one worker
  including its start.
- `regroup --help` and `regroup ls` over bare `python -c pass`: at most 0.5 s more.

CPU only: nothing here runs on a GPU.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.extract_job import SmallJob
from benchmarks.paired import Comparison, Contender, Fact, Item, Setting, Skipped, Taken, command
from regroup.kernels.allocator import keep_freed_memory
from regroup_cluster.dispatch.actor_pool import worker_pool
from regroup_cluster.resources import WorkerResources
from regroup_cluster.session import SessionConfig, ray_session
from regroup_store.format.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from regroup_cluster.dispatch.actor_pool import WorkerPool

SHARE, EXTRA_S = 1.03, 0.5
CPUS = 2


@dataclass(frozen=True)
class Size:
    """Sizes of a run.

    Attributes:
        in_turn: blocks that alternate with the plain loop.
        others: blocks of the other rows.
        block_rows: samples per block.
    """

    in_turn: int
    others: int
    block_rows: int


SIZES = {"tiny": Size(3, 2, 8), "small": Size(12, 4, 1024), "full": Size(48, 16, 1024)}


def items(setting: Setting) -> Iterator[Item]:
    """Yield the start-up of commands, then the job."""
    if setting.device != "cpu":
        yield Skipped("overhead", "it measures only the CPU: omit --device")
        return
    keep_freed_memory()  # as in a worker
    with tempfile.TemporaryDirectory() as folder:
        yield start_up(Path(folder))
        # An idle pool keeps its CPUs while another one starts.
        with ray_session(SessionConfig(num_cpus=2 * CPUS)):
            yield from _jobs(Path(folder), SIZES[setting.sizes])


def _jobs(folder: Path, size: Size) -> Iterator[Item]:
    job = small_job(folder / "in turn", size.in_turn, size.block_rows)
    with share(job) as comparison:
        yield comparison
    yield outside(job)
    job = small_job(folder / "others", size.others, size.block_rows)
    with others(job) as comparison:
        yield comparison


def small_job(folder: Path, blocks: int, block_rows: int) -> SmallJob:
    """Create a job in a separate folder."""
    folder.mkdir()
    return SmallJob(folder, blocks, block_rows)


def outside(job: SmallJob) -> Fact:
    """Return the median share of a dispatch's seconds in which its worker was outside blocks."""
    what = "share of time that the worker is outside blocks"
    return Fact(what, statistics.median(job.outside), SHARE - 1)


class InTurn:
    """A pool and a plain loop that alternate block by block: the two halves of one run."""

    def __init__(self, job: SmallJob, pool: WorkerPool) -> None:
        self._job, self._pool = job, pool
        self._left: tuple[deque[Taken], deque[Taken]] = (deque(), deque())

    def half(self, which: int) -> Taken:
        """Return what the pool (0) or the loop (1) took; runs both unless one result is left."""
        if not self._left[which]:
            both = self._job.in_turn(self._pool, CPUS)
            for left, taken in zip(self._left, both, strict=True):
                left.append(taken)
        return self._left[which].popleft()


@contextmanager
def share(job: SmallJob) -> Iterator[Comparison]:
    """Compare the job with Ray with a plain loop in the driver, alternating block by block."""
    with worker_pool(WorkerResources(1, CPUS, 0)) as pool:
        halves = InTurn(job, pool)
        notes: dict[str, object] = {"blocks": job.blocks}
        ours = Contender(
            "extract job, 1 worker of 2 threads",
            lambda: halves.half(0),
            SHARE,
            samples=job.samples,
            notes=notes,
        )
        loop = "plain loop of 2 threads, in turn"
        yield Comparison(loop, lambda: halves.half(1), (ours,), job.samples)


@contextmanager
def others(job: SmallJob) -> Iterator[Comparison]:
    """Compare two workers, and one including its start, with a plain loop; for information."""
    with worker_pool(WorkerResources(CPUS, 1, 0)) as pool:
        contenders = (
            Contender(
                "extract job, 2 workers of 1 thread",
                lambda: job.on(pool),
                samples=job.samples,
            ),
            Contender(
                "extract job, its worker's start included",
                lambda: job.cold(1, CPUS),
                samples=job.samples,
            ),
        )
        plain = "one plain loop, 2 threads"
        yield Comparison(plain, lambda: job.plain(CPUS), contenders, job.samples)


def start_up(folder: Path) -> Comparison:
    """Compare commands that need neither torch nor Ray with Python alone."""
    store = str(folder / "empty")
    open_store(store, create=True)
    commands = {"regroup --help": ["--help"], "regroup ls": ["ls", "--store", store]}
    contenders = tuple(
        Contender(what, _started("-m", "regroup_pipelines.cli", *words), EXTRA_S, "extra")
        for what, words in commands.items()
    )
    return Comparison("python -c pass", _started("-c", "pass"), contenders)


def _started(*words: str) -> Callable[[], Taken]:
    """Return a function that runs Python once."""

    def run() -> Taken:
        """Start Python and wait for its end.

        Raises:
            CalledProcessError: it fails.
        """
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        return Taken(time.perf_counter() - started)

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print the table."""
    return command("overhead", __doc__, items, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
