"""Ray's share of an extract job, and the start of the `regroup` command: `python -m
benchmarks.overhead`.

- cifar-resnet20 over PNGs of 32 px in blocks of 1024, one worker with two threads, whose process
  runs already, over the same worker in one plain loop in this process: at most 1.03. For
  information, two workers with one thread each, and the worker's start included.
- `regroup --help` and `regroup ls` over bare `python -c pass`: at most 0.5 s more.

CPU alone: nothing here runs on a GPU.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.alternating import Comparison, Contender, Item, Setting, Skipped, Taken, command
from benchmarks.extract_job import SmallJob
from cluster.session import SessionConfig, ray_session
from store.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SHARE, EXTRA_S = 1.03, 0.5
CPUS = 2


@dataclass(frozen=True)
class Size:
    """Blocks, and their samples."""

    blocks: int
    block_rows: int


SIZES = {"tiny": Size(2, 8), "small": Size(2, 1024), "full": Size(16, 1024)}


def items(setting: Setting) -> Iterator[Item]:
    """The job, then the command."""
    if setting.device != "cpu":
        yield Skipped("overhead", "it is of the CPU alone: leave --device out")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield start_up(Path(folder))
        size = SIZES[setting.sizes]
        job = SmallJob(Path(folder), size.blocks, size.block_rows)
        with ray_session(SessionConfig(num_cpus=CPUS)):
            yield share(job, size)


def share(job: SmallJob, size: Size) -> Comparison:
    """The job with Ray over one plain loop."""
    notes: dict[str, object] = {"blocks": size.blocks, "block_rows": size.block_rows}
    contenders = (
        Contender(
            "extract job, 1 worker of 2 threads",
            lambda: job.with_ray(1, CPUS),
            SHARE,
            samples=job.samples,
            notes=notes,
        ),
        Contender(
            "extract job, 2 workers of 1 thread",
            lambda: job.with_ray(CPUS, 1),
            samples=job.samples,
            notes=notes,
        ),
        Contender(
            "extract job, its worker's start included",
            lambda: job.with_ray(1, CPUS, warm=False),
            samples=job.samples,
            notes=notes,
        ),
    )
    plain = "one plain loop, 2 threads"
    return Comparison(plain, lambda: job.plain(CPUS), contenders, job.samples)


def start_up(folder: Path) -> Comparison:
    """The commands that need neither torch nor Ray, over Python alone."""
    store = str(folder / "empty")
    open_store(store, create=True)
    commands = {"regroup --help": ["--help"], "regroup ls": ["ls", "--store", store]}
    contenders = tuple(
        Contender(what, _started("-m", "pipelines.cli", *words), EXTRA_S, "extra")
        for what, words in commands.items()
    )
    return Comparison("python -c pass", _started("-c", "pass"), contenders)


def _started(*words: str) -> Callable[[], Taken]:
    """Runs Python once; a failure ends the benchmark."""

    def run() -> Taken:
        """Start Python, wait for its end; CalledProcessError where it fails."""
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        return Taken(time.perf_counter() - started)

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the table goes to standard output."""
    return command("overhead", __doc__, items, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
