"""Workers that misbehave, for the tests of dispatch. Attempts leave a file each in a folder.

Here, not beside the tests: every worker process imports this module, and no torch with it.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from regroup_cluster.dispatch.actor_pool import worker_pool
from regroup_cluster.dispatch.blocks import (
    BlockOutcome,
    BlockWork,
    DispatchReport,
    RetryPolicy,
)
from regroup_cluster.dispatch.progress import Progress
from regroup_cluster.dispatch.stopwatch import BlockClock
from regroup_cluster.dispatch.worker_log import DispatchLabel
from regroup_cluster.resources import WorkerResources
from tests.cluster.nodes import wait_for


class UnpicklableError(Exception):
    """Cannot be rebuilt from its pickle, as many exceptions of other libraries."""

    def __init__(self, first: str, *, second: str) -> None:
        super().__init__(f"{first} and {second}")


def crash() -> None:
    os._exit(13)


def fail() -> None:
    raise UnpicklableError("bad", second="luck")


def hang() -> None:
    time.sleep(600)


@dataclass(frozen=True)
class FaultyWork(BlockWork):
    """Work and worker at once, with faults on purpose.

    Attributes:
        folder: where every attempt at a block leaves a file, named block.attempt.pid.
        faults: block -> what happens on it.
        times: on how many of the block's first attempts it happens.
    """

    folder: Path
    faults: dict[int, Callable[[], None]] = field(default_factory=dict)
    times: int = 1

    def open(self) -> FaultyWork:
        return self

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        used = len(list(self.folder.glob(f"{block}.*")))
        (self.folder / f"{block}.{used}.{os.getpid()}").touch()
        if block in self.faults and used < self.times:
            self.faults[block]()
        return BlockOutcome(committed=True, samples=10 + block)


@dataclass(frozen=True)
class BrokenWork(BlockWork):
    """Work that raises or crashes when it is opened, except after `healthy_after` attempts."""

    fault: Callable[[], None]
    folder: Path
    healthy_after: int = 1000

    def open(self) -> FaultyWork:
        used = len(list(self.folder.glob("start.*")))
        (self.folder / f"start.{used}.{os.getpid()}").touch()
        if used < self.healthy_after:
            self.fault()
        return FaultyWork(self.folder)


@dataclass(frozen=True)
class LargeArrays(BlockWork):
    """A worker that writes to a file how many page faults an array of 128 MiB costs per block."""

    folder: Path

    def open(self) -> LargeArrays:
        return self

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(2**24)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        (self.folder / f"faults-{block}").write_text(str(faults))
        return BlockOutcome(committed=True, samples=1)


@dataclass(frozen=True)
class Environment(BlockWork):
    """A worker that writes the number of threads of its process to a file."""

    folder: Path

    def open(self) -> Environment:
        return self

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        import torch

        threads = f"{os.environ['OMP_NUM_THREADS']} {torch.get_num_threads()}"
        (self.folder / f"threads-{block}").write_text(threads)
        return BlockOutcome(committed=True, samples=1)


def attempts(folder: Path) -> Counter[int]:
    """How often each block was tried."""
    return Counter(int(path.name.split(".")[0]) for path in folder.glob("[0-9]*"))


def has_begun(folder: Path, block: int) -> bool:
    return attempts(folder)[block] > 0


def nap() -> None:
    time.sleep(1)


@dataclass(frozen=True)
class FailInPairs:
    """Fails once the attempt and its duplicate have both begun."""

    folder: Path

    def __call__(self) -> None:
        begun = attempts(self.folder)[0]
        wait_for(lambda: attempts(self.folder)[0] >= begun + begun % 2, "the duplicate")
        fail()


@dataclass(frozen=True)
class UntilTheLast:
    """Takes until the last of the other blocks was begun."""

    folder: Path
    last: int

    def __call__(self) -> None:
        wait_for(lambda: has_begun(self.folder, self.last), "the last block")


@dataclass(frozen=True)
class Overwriting(FaultyWork):
    """A second attempt would write over the first."""

    duplicable: ClassVar[bool] = False


def dispatch_to_actors(
    work: BlockWork,
    blocks: Sequence[int],
    resources: WorkerResources,
    policy: RetryPolicy,
    progress: Progress,
    label: DispatchLabel | None = None,
) -> DispatchReport:
    """Run `blocks` on a pool of actors that lives for this one dispatch."""
    with worker_pool(resources) as pool:
        return pool.dispatch(work, blocks, policy, progress, label)
