"""One attempt at a block, in a worker process: run, measured, logged, its exception made text."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regroup.kernels.allocator import keep_freed_memory
from regroup_cluster.dispatch.blocks import BlockReport
from regroup_cluster.dispatch.stopwatch import BlockClock
from regroup_cluster.dispatch.worker_log import AttemptLog
from regroup_cluster.errors import ClusterError
from regroup_store.secrets import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

    from regroup_cluster.dispatch.blocks import BlockWork, BlockWorker
    from regroup_cluster.dispatch.worker_log import DispatchLabel

# Ray sends answers below 100 kB in line; a larger one would be fetched from the worker's node,
# which may be lost or hung by then.
REASON_CHARACTERS = 10_000


@dataclass(frozen=True)
class AttemptError:
    """An exception of an attempt, as text: not every exception survives pickling.

    Attributes:
        reason: the traceback.
        fatal: the message where the exception says that every other attempt would fail as well
            (a full store), else None.
        usage: whether a fatal exception is a usage error (`exit_status` 2).
    """

    reason: str
    fatal: str | None = None
    usage: bool = False


@dataclass(frozen=True)
class StartError:
    """Why a worker could not be built.

    Attributes:
        message: of the exception.
        traceback: as text.
        usage: whether it was a usage error (`exit_status` 2).
    """

    message: str
    traceback: str
    usage: bool


class OpenedWork:
    """The worker of the current dispatch, kept by a process between blocks."""

    def __init__(self) -> None:
        self._dispatch: str | None = None
        self._worker: BlockWorker | None = None

    def worker(self, dispatch: str, work: BlockWork) -> BlockWorker:
        """Return the worker of `dispatch`, opened unless this process has it already."""
        if self._worker is None or dispatch != self._dispatch:
            # The last worker's memory (its network) is freed before the next one is built.
            self._dispatch = self._worker = None
            self._worker = work.open()
            self._dispatch = dispatch
        return self._worker

    def current(self) -> BlockWorker:
        """Return the worker that was opened last.

        Raises:
            ClusterError: there is none.
        """
        if self._worker is None:
            raise ClusterError("this process has opened no work")
        return self._worker


def attempt(
    opened: Callable[[], BlockWorker], block: int, number: int, label: DispatchLabel
) -> BlockReport | AttemptError:
    """Run attempt `number` (from 1) at `block` by the worker that `opened` returns, and log it."""
    keep_freed_memory()
    log = AttemptLog(label, block, number)
    try:
        report = measured(opened(), block)
    except Exception as error:
        reason = traceback_text(error)
        said = without_secrets(str(error))
        log.failure(f"{type(error).__name__}: {said}"[:REASON_CHARACTERS], reason)
        fatal = said if getattr(error, "fatal", False) else None
        return AttemptError(reason, fatal, is_usage_error(error))
    log.end("committed" if report.committed else "another attempt had committed")
    return report


def measured(worker: BlockWorker, block: int) -> BlockReport:
    """Have `worker` process `block` and report what that took."""
    clock = BlockClock()
    outcome = worker.process(block, clock)
    return BlockReport(
        block=block,
        committed=outcome.committed,
        samples=outcome.samples,
        failed=outcome.failed,
        forward_passes=clock.forward_passes,
        seconds=clock.seconds,
        phases=clock.phases,
    )


def traceback_text(error: BaseException) -> str:
    """Return the traceback of `error` as text without credentials, its end where it is long."""
    return without_secrets("".join(traceback.format_exception(error)))[-REASON_CHARACTERS:]


def is_usage_error(error: BaseException) -> bool:
    """Return whether `error` says that the user asked for something invalid."""
    return getattr(error, "exit_status", 1) == 2
