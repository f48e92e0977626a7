"""Workers that misbehave, for the tests of dispatch. Attempts leave a file each in a folder."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from regroup_cluster.dispatch.actor_pool import worker_pool
from regroup_cluster.dispatch.blocks import BlockReport, DispatchReport, RetryPolicy, WorkerFactory
from regroup_cluster.dispatch.progress import Progress
from regroup_cluster.dispatch.worker_log import Label
from regroup_cluster.resources import WorkerResources


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
class Job:
    """A worker factory and a task at once.

    Attributes:
        folder: where every attempt at a block leaves a file, named block.attempt.pid.
        faults: block -> what happens on it.
        times: on how many of the block's first attempts it happens.
    """

    folder: Path
    faults: dict[int, Callable[[], None]] = field(default_factory=dict)
    times: int = 1

    def __call__(self) -> Job:
        return self

    def process(self, block: int) -> BlockReport:
        used = len(list(self.folder.glob(f"{block}.*")))
        (self.folder / f"{block}.{used}.{os.getpid()}").touch()
        if block in self.faults and used < self.times:
            self.faults[block]()
        return BlockReport(block, True, 10 + block, 0, 0, 0.0)


@dataclass(frozen=True)
class BrokenJob:
    """A factory that raises or crashes, except after `healthy_after` attempts."""

    fault: Callable[[], None]
    folder: Path
    healthy_after: int = 1000

    def __call__(self) -> Job:
        used = len(list(self.folder.glob("start.*")))
        (self.folder / f"start.{used}.{os.getpid()}").touch()
        if used < self.healthy_after:
            self.fault()
        return Job(self.folder)


@dataclass(frozen=True)
class LargeArrays:
    """A worker that writes to a file how many page faults an array of 128 MiB costs a block."""

    folder: Path

    def __call__(self) -> LargeArrays:
        return self

    def process(self, block: int) -> BlockReport:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(2**24)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        (self.folder / f"faults-{block}").write_text(str(faults))
        return BlockReport(block, True, 1, 0, 0, 0.0)


@dataclass(frozen=True)
class Environment:
    """A worker that writes the number of threads of its process to a file."""

    folder: Path

    def __call__(self) -> Environment:
        return self

    def process(self, block: int) -> BlockReport:
        import torch

        threads = f"{os.environ['OMP_NUM_THREADS']} {torch.get_num_threads()}"
        (self.folder / f"threads-{block}").write_text(threads)
        return BlockReport(block, True, 1, 0, 0, 0.0)


def dispatch_to_actors(
    factory: WorkerFactory,
    blocks: Sequence[int],
    resources: WorkerResources,
    policy: RetryPolicy,
    progress: Progress,
    label: Label | None = None,
) -> DispatchReport:
    """Run `blocks` on a pool of actors that lives for this one dispatch."""
    with worker_pool(resources) as pool:
        return pool.dispatch(factory, blocks, policy, progress, label)
