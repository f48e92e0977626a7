"""The driver's loop: hands out blocks, collects outcomes, retries, keeps deadlines. DESIGN §6.

One loop for actors and for tasks: it sees only `Slots`, the places where blocks can run.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import ray
from ray.exceptions import RayError

from cluster.dispatch import BlockFailure, BlockReport, DispatchReport, RetryPolicy
from cluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.progress import Progress

TICK_S = 1.0


@dataclass(frozen=True)
class AttemptError:
    """An exception that a block raised, as text: not every exception survives pickling.

    Attributes:
        reason: the traceback.
        ends_job: the message where the exception says that other attempts would meet it as well
            (a full store), else None.
    """

    reason: str
    ends_job: str | None = None


def attempt(function: Callable[[int], BlockReport], block: int) -> BlockReport | AttemptError:
    """Run one attempt at `block`, in the worker process."""
    try:
        return function(block)
    except Exception as error:
        ends_job = str(error) if getattr(error, "ends_job", False) else None
        return AttemptError(traceback.format_exc(), ends_job)


class Slots(Protocol):
    """Places where blocks run, one block each at a time.

    Attributes:
        placement_s: seconds that a started block may wait to be placed; its deadline allows for it.
    """

    placement_s: float

    def tend(self, wanted: int) -> int:
        """Keep at most `wanted` slots up; return how many blocks could start now.

        Raises ClusterError when there never will be one.
        """
        ...

    def awaited(self) -> list[Any]:
        """ObjectRefs whose answer would make a slot ready."""
        ...

    def start(self, block: int) -> Any:
        """Start `block` on a free slot; the ObjectRef of its BlockReport or AttemptError."""
        ...

    def finished(self, ref: Any, error: RayError | None) -> None:
        """The attempt `ref` has answered, or Ray lost it with `error`."""
        ...

    def abandon(self, ref: Any) -> None:
        """Kill whatever runs the attempt `ref`."""
        ...


@dataclass(frozen=True)
class _Attempt:
    block: int
    number: int
    deadline: float


def drive(
    slots: Slots, blocks: Sequence[int], policy: RetryPolicy, progress: Progress
) -> DispatchReport:
    """Run every block to a report or a failure. Memory does not grow but by one report a block.

    An interruption (KeyboardInterrupt, SystemExit) or a ClusterError kills what is in flight and
    goes on upwards.
    """
    loop = _Loop(slots, blocks, policy, progress)
    progress.start(len(blocks))
    try:
        return loop.run()
    finally:
        loop.abandon_all()
        progress.close()


class _Loop:
    def __init__(
        self, slots: Slots, blocks: Sequence[int], policy: RetryPolicy, progress: Progress
    ) -> None:
        self._slots, self._policy, self._progress = slots, policy, progress
        self._limit = policy.deadline_s + slots.placement_s
        # (block, attempts used): a block that failed goes to the end, behind all others.
        self._queue = deque((block, 0) for block in blocks)
        self._running: dict[Any, _Attempt] = {}
        self._reports: list[BlockReport] = []
        self._failures: list[BlockFailure] = []

    def run(self) -> DispatchReport:
        while self._queue or self._running:
            self._hand_out()
            self._collect()
            self._expire()
            self._progress.tick()
        return DispatchReport(
            tuple(sorted(self._reports, key=lambda report: report.block)),
            tuple(sorted(self._failures, key=lambda failure: failure.block)),
        )

    def abandon_all(self) -> None:
        for ref in self._running:
            self._slots.abandon(ref)
        self._running.clear()

    def _hand_out(self) -> None:
        free = self._slots.tend(len(self._queue) + len(self._running))
        for _ in range(min(free, len(self._queue))):
            block, used = self._queue.popleft()
            deadline = time.monotonic() + self._limit
            self._running[self._slots.start(block)] = _Attempt(block, used + 1, deadline)

    def _collect(self) -> None:
        refs = [*self._running, *self._slots.awaited()]
        if not refs:
            time.sleep(TICK_S / 10)
            return
        ready, _ = ray.wait(refs, num_returns=1, timeout=self._patience())
        for ref in ready:
            if ref in self._running:
                self._settle(ref, self._running.pop(ref))

    def _patience(self) -> float:
        """Seconds until something may have to be done even if no answer comes."""
        now = time.monotonic()
        return max(0.0, min([TICK_S, *(a.deadline - now for a in self._running.values())]))

    def _settle(self, ref: Any, tried: _Attempt) -> None:
        try:
            outcome: BlockReport | AttemptError = ray.get(ref)
        except RayError as error:
            self._slots.finished(ref, error)
            self._retry(tried, f"the worker was lost: {_one_line(error)}")
            return
        self._slots.finished(ref, None)
        if isinstance(outcome, AttemptError) and outcome.ends_job:
            raise ClusterError(outcome.ends_job)
        if isinstance(outcome, AttemptError):
            self._retry(tried, outcome.reason)
        else:
            self._reports.append(outcome)
            self._progress.update(outcome)

    def _retry(self, tried: _Attempt, reason: str) -> None:
        if tried.number < self._policy.attempts:
            self._queue.append((tried.block, tried.number))
            self._progress.retry(tried.block, reason)
        else:
            self._failures.append(BlockFailure(tried.block, tried.number, reason))
            self._progress.failure(tried.block, reason)

    def _expire(self) -> None:
        now = time.monotonic()
        for ref in [ref for ref, tried in self._running.items() if tried.deadline <= now]:
            tried = self._running.pop(ref)
            self._slots.abandon(ref)
            self._retry(tried, f"the block was not done within its deadline of {self._limit:g} s")


def _one_line(error: RayError) -> str:
    return " ".join(str(error).split())[:1000]
