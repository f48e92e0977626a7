"""What more workers bring: `python -m benchmarks.workers`.

- the extract job of cifar-resnet20 (benchmarks/extract_job.py) by two single-thread workers over
  one: at least 1.9 times the samples/s. Their processes run already. It needs two free cores.
- for information: the same by plain processes without Ray, two over one, which is what the machine
  gives (its cores share caches, memory and clock rate); and by workers as `regroup` starts them,
  which decode on a thread beside the network's: one of them uses more than one core already, so two
  bring less than twice on two cores.
- a simulated cluster (`ray.cluster_utils.Cluster`, nodes of up to eight CPUs) with 1, 8 and 32
  workers, whose blocks sleep instead of computing. They have to be busy for at least 95 % of the
  dispatch: the seconds slept, over the seconds taken times the workers. `--sizes full` has 2000
  blocks, as the target says; `small` at most 200, a harder case: the start counts for more. With
  one worker also a bare actor of Ray's that sleeps as often, called one time after the other.

CPU alone: nothing here runs on a GPU.
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
    """Blocks and their samples of the extract job; of the cluster (workers, blocks, seconds)."""

    blocks: int
    block_rows: int
    clusters: tuple[tuple[int, int, float], ...]


SIZES = {
    "tiny": Size(4, 8, ((1, 4, 0.02),)),
    "small": Size(6, 1024, ((1, 60, 0.05), (8, 200, 0.2), (32, 192, 1.0))),
    "full": Size(32, 1024, ((1, 2000, 0.05), (8, 2000, 0.1), (32, 2000, 0.4))),
}


def items(setting: Setting) -> Iterator[Item]:
    """Two workers over one, then each cluster."""
    if setting.device != "cpu":
        yield Skipped("workers", "it is of the CPU alone: leave --device out")
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
    """A job in a folder of its own."""
    folder.mkdir()
    return SmallJob(folder, size.blocks, size.block_rows, decode_workers)


@contextmanager
def scaling(job: SmallJob, decoding: SmallJob) -> Iterator[Comparison]:
    """One and two workers, and one and two processes without Ray; all take turns.

    `decoding`: the same job with a thread that decodes.
    """
    with ExitStack() as stack:
        alone, both = (stack.enter_context(plain_processes(count)) for count in (1, 2))
        # Pools that wait hold their CPUs, so Ray has to believe in three.
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
    """All blocks on the cluster, against workers that never wait."""
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
    """Run the benchmark; the table goes to standard output."""
    return command("workers", __doc__, items, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
