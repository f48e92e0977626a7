"""The speed-up from more workers: `python -m benchmarks.workers`.

- the extract job of cifar-resnet20 (benchmarks/extract_job.py) with two single-thread workers over
  one: at least 1.9 times the samples/s. Their processes are already running. It needs two idle
  cores.
- for information: the same with plain processes without Ray, two over one, which shows what the
  machine allows (its cores share caches, memory and clock rate); and with workers as `regroup`
  starts them, which decode on a separate thread: one of them uses more than one core already, so
  two reach less than twice its speed on two cores.
- a simulated cluster (`ray.cluster_utils.Cluster`, nodes with up to eight CPUs) with 1, 8 and 32
  workers, whose blocks sleep instead of computing. They have to be busy for at least 95 % of the
  dispatch: the seconds slept, over the seconds taken times the workers. `--sizes full` has 2000
  blocks, the number that the target specifies; `small` at most 200, a harder case, because the
  start counts for more. With one worker also a bare Ray actor that sleeps as often, called one time
  after the other.

CPU only: nothing here runs on a GPU.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.extract_job import SmallJob
from benchmarks.paired import Comparison, Contender, Item, Setting, Skipped, Taken, command
from benchmarks.plain_processes import plain_processes
from benchmarks.simulated_cluster import SimulatedCluster
from regroup_cluster.dispatch.actor_pool import worker_pool
from regroup_cluster.resources import WorkerResources
from regroup_cluster.session import SessionConfig, ray_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TWICE, BUSY = 1.9, 0.95
ONE, DECODING = "extract job, 1 worker", ", decoding beside"
BARE = "share of time busy, an actor called by Ray alone"


@dataclass(frozen=True)
class Size:
    """Sizes of a run.

    Attributes:
        blocks: blocks of the extract job.
        block_rows: samples per block.
        clusters: (workers, blocks, seconds per block) of each simulated cluster.
    """

    blocks: int
    block_rows: int
    clusters: tuple[tuple[int, int, float], ...]


SIZES = {
    "tiny": Size(4, 8, ((1, 4, 0.02),)),
    "small": Size(6, 1024, ((1, 60, 0.05), (8, 200, 0.2), (32, 192, 1.0))),
    "full": Size(32, 1024, ((1, 2000, 0.05), (8, 2000, 0.1), (32, 2000, 0.4))),
}


def items(setting: Setting) -> Iterator[Item]:
    """Yield two workers over one, then each cluster."""
    if setting.device != "cpu":
        yield Skipped("workers", "it measures only the CPU: omit --device")
        return
    size = SIZES[setting.sizes]
    with tempfile.TemporaryDirectory() as folder:
        single = small_job(Path(folder) / "single", size, 0)
        decoding = small_job(Path(folder) / "decoding", size, "auto")
        with scaling(single, decoding) as comparison:
            yield comparison
    for workers, blocks, seconds in size.clusters:
        with SimulatedCluster(workers) as cluster:
            yield busy(cluster, blocks, seconds)


def small_job(folder: Path, size: Size, decode_workers: int | Literal["auto"]) -> SmallJob:
    """Create a job in a separate folder."""
    folder.mkdir()
    return SmallJob(folder, size.blocks, size.block_rows, decode_workers)


@contextmanager
def scaling(job: SmallJob, decoding: SmallJob) -> Iterator[Comparison]:
    """Compare one and two workers, and one and two processes without Ray, alternately.

    Args:
        job: the job whose network thread also decodes.
        decoding: the same job with a separate decoding thread.
    """
    with ExitStack() as stack:
        alone, both = (stack.enter_context(plain_processes(count)) for count in (1, 2))
        # Waiting pools keep their CPUs, so Ray needs three.
        stack.enter_context(ray_session(SessionConfig(num_cpus=3)))
        one, two = (stack.enter_context(worker_pool(WorkerResources(n, 1, 0))) for n in (1, 2))
        samples = job.samples
        contenders = (
            Contender("2 plain processes", lambda: both.run(job), None, "gain", samples),
            Contender(ONE, lambda: job.on(one), samples=samples),
            Contender(
                "extract job, 2 workers", lambda: job.on(two), TWICE, "gain", samples, against=ONE
            ),
            Contender(f"{ONE}{DECODING}", lambda: decoding.on(one), samples=samples),
            Contender(
                f"extract job, 2 workers{DECODING}",
                lambda: decoding.on(two),
                None,
                "gain",
                samples,
                against=f"{ONE}{DECODING}",
            ),
        )
        yield Comparison("1 plain process", lambda: alone.run(job), contenders, samples)


def busy(cluster: SimulatedCluster, blocks: int, seconds: float) -> Comparison:
    """Compare the dispatch of all blocks on the cluster with workers that never wait."""
    workers = cluster.workers
    notes: dict[str, object] = {"blocks": blocks, "block_seconds": seconds}
    waves = ceil(blocks / workers)
    ours = Contender(
        f"share of time busy, {workers} workers",
        lambda: Taken(cluster.dispatch(blocks, seconds)),
        BUSY,
        "gain",
        notes=notes | {"waves": waves},
    )
    alone = Contender(BARE, lambda: Taken(cluster.bare(blocks, seconds)), None, "gain", notes=notes)
    ways = (ours, alone) if workers == 1 else (ours,)
    return Comparison("no waiting", lambda: Taken(blocks * seconds / workers), ways)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print the table."""
    return command("workers", __doc__, items, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
