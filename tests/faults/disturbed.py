"""Work that is slow, hangs or fails on purpose, for the tests of faults.

Every attempt at a block leaves the file `<block>.<pid>.<number>.begun`, then `.committed`, or
`.ended` when another attempt had committed the block.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from regroup_cluster.dispatch.blocks import BlockOutcome, BlockWork
from regroup_cluster.dispatch.stopwatch import BlockClock
from regroup_store.backends import local


@dataclass(frozen=True)
class Disturbance:
    """What goes wrong in the workers.

    Attributes:
        folder: where attempts leave their files.
        pause_s: seconds that every fsync of the store takes longer, so that kills land in writes.
        faults: block -> what happens before it is begun.
        times: on how many of the block's first attempts it happens.
    """

    folder: Path
    pause_s: float = 0.0
    faults: dict[int, Callable[[], None]] = field(default_factory=dict)
    times: int = 10**6

    @contextlib.contextmanager
    def around(self, block: int) -> Iterator[list[BlockOutcome]]:
        """Disturb what is done inside, in the worker process; its outcome goes into the list."""
        used = len(list(self.folder.glob(f"{block}.*.begun")))
        begun = self.folder / f"{block}.{os.getpid()}.{used}.begun"
        begun.touch()
        if block in self.faults and used < self.times:
            self.faults[block]()
        outcomes: list[BlockOutcome] = []
        with slow_writes(self.pause_s):
            yield outcomes
        begun.rename(begun.with_suffix(".committed" if outcomes[0].committed else ".ended"))

    def busy(self) -> list[int]:
        """The processes that are in the midst of a block."""
        return sorted(int(path.name.split(".")[1]) for path in self.folder.glob("*.begun"))

    def attempts(self) -> dict[int, int]:
        """How often each block was begun."""
        blocks = [int(path.name.split(".")[0]) for path in self.folder.iterdir()]
        return {block: blocks.count(block) for block in sorted(set(blocks))}

    def commits(self) -> list[int]:
        """The blocks whose attempts said that they committed them, each as often as it did."""
        return sorted(int(path.name.split(".")[0]) for path in self.folder.glob("*.committed"))

    def forget(self) -> None:
        """Remove what earlier attempts left."""
        for path in self.folder.iterdir():
            path.unlink()


@contextlib.contextmanager
def slow_writes(pause_s: float) -> Iterator[None]:
    """Make every fsync of a folder store take longer."""

    def slowly(path: Path) -> None:
        time.sleep(pause_s)
        sync(path)

    sync, local._sync = local._sync, slowly
    try:
        yield
    finally:
        local._sync = sync


@dataclass(frozen=True)
class DisturbedWork(BlockWork):
    """Work whose workers are disturbed."""

    work: Any
    disturbance: Disturbance

    def on_device(self, device: str) -> DisturbedWork:
        return replace(self, work=self.work.on_device(device))

    def open(self) -> DisturbedWorker:
        return DisturbedWorker(self.work.open(), self.disturbance)


@dataclass(frozen=True)
class DisturbedWorker:
    worker: Any
    disturbance: Disturbance

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        with self.disturbance.around(block) as outcomes:
            outcomes.append(self.worker.process(block, clock))
        return outcomes[0]


WORK = (
    "regroup_pipelines.steps.extraction.ExtractionWork",
    "regroup_pipelines.steps.attacking.AttackWork",
    "regroup_pipelines.steps.votes.ScoringWork",
)


def disturb(patch: pytest.MonkeyPatch, disturbance: Disturbance, *kinds: str) -> None:
    """Have the commands of this process disturb the workers of these kinds (default: all)."""
    for name in kinds or WORK:
        module, _, kind = name.rpartition(".")
        original = getattr(__import__(module, fromlist=[kind]), kind)

        def disturbed(original: Any = original, **options: Any) -> DisturbedWork:
            return DisturbedWork(original(**options), disturbance)

        patch.setattr(name, disturbed)
