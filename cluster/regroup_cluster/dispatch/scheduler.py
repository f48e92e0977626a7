"""The driver's loop: dispatches blocks, collects outcomes, retries, enforces deadlines.

One loop for actors and for tasks: it sees only `BlockSlots`, where blocks can run.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

import ray
from ray.exceptions import RayError

from regroup_cluster.code_version import refusal
from regroup_cluster.dispatch.attempt import AttemptError
from regroup_cluster.dispatch.blocks import BlockFailure, BlockReport, DispatchReport, RetryPolicy
from regroup_cluster.errors import ClusterError, ClusterUsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regroup_cluster.dispatch.code_guard import Differs
    from regroup_cluster.dispatch.progress import Progress

TICK_S = 1.0
# An answer that ray.wait reports as ready arrives at once, unless its node was lost in between.
ANSWER_S = 10.0
# Durations that the median of finished blocks is taken over.
DURATIONS_KEPT = 1000


class BlockSlots(Protocol):
    """Slots in which blocks run, each one block at a time.

    Attributes:
        placement_s: seconds that a started block may wait to be placed; its deadline allows for it.
    """

    placement_s: float

    def tend(self, wanted: int) -> int:
        """Keep at most `wanted` slots up and return how many blocks could start now.

        Raises:
            ClusterError: there is no slot and none can be expected.
        """
        ...

    def awaited(self) -> list[Any]:
        """Return the ObjectRefs whose answer would make a slot ready."""
        ...

    def start(self, block: int, number: int, apart_from: Any = None) -> Any:
        """Start attempt `number` at `block` on a free slot.

        Args:
            block: index of the block.
            number: of the attempt, from 1.
            apart_from: ObjectRef of an attempt whose node is avoided if possible.

        Returns:
            The ObjectRef of the attempt's BlockReport or AttemptError.
        """
        ...

    def lost(self) -> list[Any]:
        """Return the attempts on nodes that are gone, even if Ray does not call them lost."""
        ...

    def finished(self, ref: Any, error: RayError | None) -> None:
        """Take note that the attempt `ref` has answered, or that Ray lost it with `error`."""
        ...

    def abandon(self, ref: Any) -> None:
        """Kill the process that runs the attempt `ref`."""
        ...


@dataclass(slots=True, eq=False)
class _Block:
    """A block without an outcome; a duplicate belongs to the try in which it was started.

    Attributes:
        failures: tries used up.
        starts: attempts started, including duplicates.
        duplicated: whether the current try has had its duplicate.
    """

    index: int
    failures: int = 0
    starts: int = 0
    duplicated: bool = False


@dataclass(frozen=True)
class _Attempt:
    block: _Block
    started: float
    deadline: float


def drive(
    slots: BlockSlots, blocks: Sequence[int], policy: RetryPolicy, progress: Progress
) -> DispatchReport:
    """Run every block to a report or a failure; memory grows by one report per block.

    Raises:
        ClusterError: an attempt failed in a way that every other would, or no worker can be
            started. This, like an interruption (KeyboardInterrupt, SystemExit), kills all attempts
            in flight.
    """
    loop = _Loop(slots, blocks, policy, progress)
    progress.start(len(blocks))
    try:
        return loop.run()
    finally:
        loop.abandon_all()
        progress.close()


@dataclass
class _Pace:
    """How long blocks took so far, and from when on one is a straggler."""

    policy: RetryPolicy
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=DURATIONS_KEPT))

    def limit(self) -> float:
        """Return the seconds after which a block is a straggler; infinite at first."""
        if not self.durations:
            return float("inf")
        return max(self.policy.straggler_s, self.policy.straggler_factor * median(self.durations))


class _Loop:
    def __init__(
        self, slots: BlockSlots, blocks: Sequence[int], policy: RetryPolicy, progress: Progress
    ) -> None:
        self._slots, self._policy, self._progress = slots, policy, progress
        self._limit = policy.deadline_s + slots.placement_s
        # A block that failed goes to the end, behind all others.
        self._queue = deque(_Block(block) for block in blocks)
        self._running: dict[Any, _Attempt] = {}
        self._pace = _Pace(policy)
        self._reports: list[BlockReport] = []
        self._failures: list[BlockFailure] = []

    def run(self) -> DispatchReport:
        """Dispatch and collect until no block is left, and return their outcomes in order."""
        while self._queue or self._running:
            self._start_blocks()
            self._collect()
            self._expire()
            self._progress.tick()
        return DispatchReport(
            tuple(sorted(self._reports, key=lambda report: report.block)),
            tuple(sorted(self._failures, key=lambda failure: failure.block)),
        )

    def abandon_all(self) -> None:
        """Kill all attempts that still run: the dispatch ends."""
        for ref in self._running:
            self._slots.abandon(ref)
        self._running.clear()

    def _start_blocks(self) -> None:
        stragglers = [] if self._queue else self._stragglers()
        free = self._slots.tend(len(self._queue) + len(self._running) + len(stragglers))
        for _ in range(min(free, len(self._queue))):
            self._start(self._queue.popleft())
        for ref in stragglers[: max(0, free)]:
            block = self._running[ref].block
            block.duplicated = True
            self._start(block, apart_from=ref)

    def _start(self, block: _Block, apart_from: Any = None) -> None:
        block.starts += 1
        now = time.monotonic()
        ref = self._slots.start(block.index, block.starts, apart_from)
        self._running[ref] = _Attempt(block, now, now + self._limit)

    def _stragglers(self) -> list[Any]:
        """Return the attempts that need a duplicate, the longest-running first."""
        latest = time.monotonic() - self._pace.limit()
        late = [ref for ref, tried in self._running.items() if tried.started <= latest]
        return [ref for ref in late if not self._running[ref].block.duplicated]

    def _collect(self) -> None:
        refs = [*self._running, *self._slots.awaited()]
        if not refs:
            time.sleep(TICK_S / 10)
            return
        ready, _ = ray.wait(refs, num_returns=1, timeout=self._patience(), fetch_local=False)
        for ref in ready:
            if ref in self._running:
                self._settle(ref, self._running.pop(ref))

    def _patience(self) -> float:
        """Return the seconds until something may be due even if no answer comes."""
        now = time.monotonic()
        return max(0.0, min([TICK_S, *(a.deadline - now for a in self._running.values())]))

    def _settle(self, ref: Any, tried: _Attempt) -> None:
        try:
            outcome: BlockReport | AttemptError | Differs = ray.get(ref, timeout=ANSWER_S)
        except RayError as error:
            self._slots.finished(ref, error)
            self._retry(tried.block, f"the worker was lost: {_one_line(error)}")
            return
        self._slots.finished(ref, None)
        if isinstance(outcome, tuple):
            raise ClusterUsageError(refusal(*outcome))
        if isinstance(outcome, AttemptError) and outcome.fatal:
            raise (ClusterUsageError if outcome.usage else ClusterError)(outcome.fatal)
        if isinstance(outcome, AttemptError):
            self._retry(tried.block, outcome.reason)
        else:
            self._pace.durations.append(time.monotonic() - tried.started)
            self._report(tried.block, outcome)

    def _report(self, block: _Block, report: BlockReport) -> None:
        """Keep the first answer, whichever attempt committed, and kill the other attempt."""
        for ref in self._attempts_at(block):
            del self._running[ref]
            self._slots.abandon(ref)
        self._reports.append(report)
        self._progress.update(report)

    def _attempts_at(self, block: _Block) -> list[Any]:
        return [ref for ref, tried in self._running.items() if tried.block is block]

    def _retry(self, block: _Block, reason: str) -> None:
        """Queue the block again or record its failure; of two attempts only the last counts."""
        if self._attempts_at(block):
            self._progress.retry(block.index, reason)
            return
        block.failures += 1
        block.duplicated = False
        if block.failures < self._policy.attempts:
            self._queue.append(block)
            self._progress.retry(block.index, reason)
        else:
            self._failures.append(BlockFailure(block.index, block.failures, reason))
            self._progress.failure(block.index, reason)

    def _expire(self) -> None:
        now = time.monotonic()
        for ref in [ref for ref, tried in self._running.items() if tried.deadline <= now]:
            self._abandon(ref, f"the block was not done within its deadline of {self._limit:g} s")
        for ref in self._slots.lost():
            self._abandon(ref, "the worker was lost: its node is gone")

    def _abandon(self, ref: Any, reason: str) -> None:
        tried = self._running.pop(ref)
        self._slots.abandon(ref)
        self._retry(tried.block, reason)


def _one_line(error: RayError) -> str:
    return " ".join(str(error).split())[:1000]
