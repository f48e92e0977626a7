"""The session of a command: a store, workers that are started only for work, and a ledger."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from regroup_cluster.code_version import code_digests
from regroup_cluster.dispatch.blocks import RetryPolicy
from regroup_cluster.dispatch.metrics import MetricsProgress
from regroup_cluster.dispatch.progress import Broadcast, last, make_progress, without_numbers
from regroup_cluster.dispatch.stopwatch import add_seconds
from regroup_cluster.dispatch.worker_log import DispatchLabel
from regroup_cluster.errors import ClusterError
from regroup_cluster.resources import WorkerResources
from regroup_cluster.session import SessionConfig, ray_session
from regroup_pipelines.configs.table import command_of
from regroup_pipelines.errors import (
    IncompleteError,
    TerminatedError,
    interruption,
    received_signal,
)
from regroup_pipelines.log import log
from regroup_pipelines.results.records import LedgerEntry, found_entry
from regroup_pipelines.steps.failed_rows import FailedRows
from regroup_pipelines.steps.run_record import RunRecord, outcome
from regroup_store.format.block_plan import format_blocks
from regroup_store.format.environment import record_code
from regroup_store.format.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from regroup_cluster.dispatch.actor_pool import WorkerPool
    from regroup_cluster.dispatch.blocks import BlockFailure, BlockWork, DispatchReport
    from regroup_cluster.dispatch.progress import Progress
    from regroup_pipelines.configs.options import ClusterOptions
    from regroup_store.format.element import BlockElement
    from regroup_store.format.store import Store


ALLOW_MISSING_HINT = ", or with --allow-missing to continue without them"


@dataclass
class Session:
    """A store and workers for the duration of a command; all of them open on first use.

    Attributes:
        options: of the command: store, cluster and workers.
        create: whether a store that does not exist is created.
        allow_missing: whether elements are finalised without the blocks that failed.
        strict: whether an attack that could not work is refused.
        ledger: what each step did.
    """

    options: ClusterOptions
    create: bool = True
    allow_missing: bool = False
    strict: bool = False
    ledger: list[LedgerEntry] = field(default_factory=list)
    _failed_rows: FailedRows = field(default_factory=FailedRows)
    _stack: ExitStack = field(default_factory=ExitStack)
    _pool: WorkerPool | None = None
    _joined: bool = False
    _run_record: RunRecord | None = None

    @cached_property
    def store(self) -> Store:
        """The store, opened on first use.

        Raises:
            StoreUsageError: it is no store, or does not exist and is not created.
        """
        record_code(code_digests())
        return open_store(self.options.store, create=self.create)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # First, since SIGKILL may follow SIGTERM within seconds.
        if self._run_record is not None:
            self._run_record.finish(error)
        self._stack.__exit__(kind, error, trace)

    @property
    def resources(self) -> WorkerResources:
        """What each worker gets, from the options."""
        o = self.options
        return WorkerResources(workers=o.workers, cpus=o.cpus_per_worker, gpus=o.gpus_per_worker)

    @property
    def joined(self) -> bool:
        """Whether Ray is started or joined."""
        return self._joined

    def _join(self) -> None:
        """Start or join Ray, once."""
        if self._joined:
            return
        try:
            config = SessionConfig(self.options.address)
            self._stack.enter_context(ray_session(config, self._tell_loss))
        except BaseException:
            self._recorded()  # so that the run's end is recorded, before its first work
            raise
        self._joined = True

    def _tell_loss(self, sentence: str) -> int:
        """Say and record that Ray is lost; return the status to end with, in another thread.

        Where a signal ended Ray's processes together with this one, that is what ends the run.
        """
        error: BaseException = ClusterError(sentence)
        if number := received_signal():
            error, sentence = TerminatedError(number), interruption(number)
        log(f"regroup {command_of(self.options)}: {sentence}")
        self._recorded().finish(error)
        return outcome(error)[1]

    def workers(self) -> WorkerPool:
        """Return the pool of worker actors, started on first use and kept for the session."""
        from regroup_cluster.dispatch.actor_pool import worker_pool  # ray: only for work

        self._join()
        if self._pool is None:
            self._pool = self._stack.enter_context(worker_pool(self.resources))
        return self._pool

    @property
    def on_gpus(self) -> bool:
        """Whether the workers will have GPUs; joins the cluster where the options do not say."""
        share = self.options.gpus_per_worker
        return bool(self.workers().resources.gpus if share is None else share)

    def fill_on_actors(self, step: str, element: BlockElement, work: BlockWork) -> None:
        """Fill the missing blocks of `element` on the pool of worker actors.

        Networks run on "cuda" where each worker has a GPU share, else on "cpu".

        Raises:
            IncompleteError: blocks failed.
        """

        def dispatch(blocks: list[int], rows: int, done: int) -> DispatchReport:
            """Have the pool work on `blocks`, on the device that its workers have."""
            pool = self.workers()
            placed = work.on_device("cuda" if pool.resources.gpus else "cpu")
            progress = self._progress(step, rows, done)
            return pool.dispatch(placed, blocks, self._policy(), progress, self._label(step))

        self._fill(step, element, dispatch)

    def fill_by_tasks(self, step: str, element: BlockElement, work: BlockWork) -> None:
        """Fill the missing blocks of `element` by stateless tasks.

        Raises:
            IncompleteError: blocks failed.
        """

        def dispatch(blocks: list[int], rows: int, done: int) -> DispatchReport:
            """Run one task per block."""
            return self.run_tasks(step, work, blocks, rows, done)

        self._fill(step, element, dispatch)

    def run_tasks(
        self,
        step: str,
        work: BlockWork,
        blocks: Sequence[int],
        rows: int,
        done: int = 0,
        *,
        resources: WorkerResources | None = None,
        ref: str = "",  # noqa: ARG002 - for the plan of a dry run
    ) -> DispatchReport:
        """Run one stateless task per block.

        Args:
            step: what is made.
            work: what the tasks do.
            blocks: indices of the blocks.
            rows: samples in all of them.
            done: blocks that exist already.
            resources: of each task; None: those of the options.
            ref: element or timing that the tasks make, if it is one.
        """
        from regroup_cluster.dispatch.task_slots import dispatch_as_tasks  # ray: only for work

        self._join()
        progress = self._progress(step, rows, done)
        return dispatch_as_tasks(
            work, blocks, resources or self.resources, self._policy(), progress, self._label(step)
        )

    def _policy(self) -> RetryPolicy:
        policy = RetryPolicy(attempts=self.options.attempts, deadline_s=self.options.deadline)
        # Without locks the later of two attempts at once could write over what the first committed.
        return policy if self.store.backend.locks else policy.without_duplicates()

    def _label(self, step: str) -> DispatchLabel:
        """Return the name of a dispatch of this run in the workers' logs."""
        return DispatchLabel(self._recorded().id, step)

    def _progress(self, step: str, rows: int, done: int) -> Progress:
        shown = self._recorded().step(step, rows, done)
        return Broadcast(make_progress(step, rows, done), shown, MetricsProgress(step))

    def _recorded(self) -> RunRecord:
        """Return the record of this run, begun with its first work: without work there is none."""
        if self._run_record is None:
            command = command_of(self.options)
            self._run_record = RunRecord(self.store, command, self.options, self.summary, log)
        return self._run_record

    def _fill(
        self,
        step: str,
        element: BlockElement,
        dispatch: Callable[[list[int], int, int], DispatchReport],
    ) -> None:
        started, missing = time.perf_counter(), element.missing()
        skipped = element.plan.blocks - len(missing)
        if self.allow_missing:  # what was accepted once is not tried again
            missing = [block for block in missing if block not in element.listed_gaps]
        if missing:
            rows = sum(element.plan.size(block) for block in missing)
            report = dispatch(missing, rows, skipped)
            quarantine_failures(element, report)
            self.record(step, element.ref, report, skipped, started)
            if self.allow_missing:
                log_failures(step, report)
            else:
                refuse_failures(step, report, allow=hasattr(self.options, "allow_missing"))
        else:
            self.record_found(step, element.ref, skipped, started)

    def finish(
        self,
        step: str,
        element: BlockElement,
        summarise: Callable[[BlockElement], dict[str, Any]],
    ) -> None:
        """Write the summary of `element` unless it has one that names the same gaps.

        Raises:
            GapError: blocks are missing, and the session does not allow that.
        IncompleteError: all rows failed.
        """
        missing, summary = element.missing(), element.summary()
        if missing and self.allow_missing:
            element.accept_gaps(missing)
        if summary is None or summary.get("missing_blocks", []) != missing:
            gaps = element.gaps if self.allow_missing else []
            element.finalise(summarise(element), without=gaps)
        warn_missing(step, element)
        self._tell_failed(step, element)

    def _tell_failed(self, step: str, element: BlockElement) -> None:
        """Log why rows failed; raises IncompleteError where all did."""
        self._failed_rows.tell(step, element)

    def record(
        self, step: str, ref: str, report: DispatchReport, skipped: int, started: float
    ) -> None:
        """Add a ledger entry for a dispatch."""
        done, phases = report.reports, dict[str, float]()
        for each in done:
            add_seconds(phases, each.phases)
        entry = LedgerEntry(
            step=step,
            ref=ref,
            blocks=len(done),
            skipped=skipped,
            samples=sum(r.samples for r in done),
            failed=sum(r.failed for r in done),
            forward_passes=sum(r.forward_passes for r in done),
            seconds=time.perf_counter() - started,
            phases=phases,
            peak_rss_bytes=max((r.peak_rss_bytes for r in done), default=0),
        )
        self.ledger.append(entry)
        log(
            f"{step}: {entry.samples} samples, {entry.forward_passes} forward passes, "
            f"{entry.seconds:.1f} s"
            + (f", {skipped} blocks already in the store" if skipped else "")
            + (f", {entry.failed} FAILED rows" if entry.failed else "")
        )

    def record_found(self, step: str, ref: str, skipped: int, started: float) -> None:
        """Add a ledger entry for a step that found everything in the store."""
        seconds = time.perf_counter() - started
        self.ledger.append(found_entry(step, ref, skipped, seconds))
        log(f"{step}: already in the store ({ref}), nothing to do")

    def announce(self, line: str) -> None:
        """Log what was done."""
        log(line)

    def summary(self) -> list[dict[str, Any]]:
        """Return the ledger as plain JSON."""
        return [entry.plain() for entry in self.ledger]


def quarantine_failures(element: BlockElement, report: DispatchReport) -> None:
    """Store with the element why blocks failed, until they are committed."""
    for failure in report.failures:
        element.quarantine(failure.block, failure.attempts, failure.reason)
    element.clear_quarantine()


def log_failures(step: str, report: DispatchReport) -> None:
    """Log why blocks failed: each reason once, whichever blocks it stopped."""
    for failures in _by_reason(report):
        blocks, first = format_blocks([failure.block for failure in failures]), failures[0]
        log(f"{step}: block {blocks} failed {first.attempts} times: {last(first.reason)}")


def _by_reason(report: DispatchReport) -> list[list[BlockFailure]]:
    """Group the failures whose reasons differ in numbers alone."""
    groups: dict[str, list[BlockFailure]] = {}
    for failure in report.failures:
        groups.setdefault(without_numbers(last(failure.reason)), []).append(failure)
    return list(groups.values())


def warn_missing(step: str, element: BlockElement) -> None:
    """Warn about samples that an element was finalised without."""
    if gaps := element.gaps:
        rows = sum(element.plan.size(block) for block in gaps)
        log(
            f"{step}: {rows} of {element.plan.rows} samples are MISSING "
            f"(block {format_blocks(gaps)} of {element.kind}/{element.ref}): they count as failed"
        )


def refuse_failures(step: str, report: DispatchReport, *, allow: bool = False) -> None:
    """Raise an error that names the blocks that failed and the first reason.

    Args:
        step: what was made.
        report: of the dispatch.
        allow: whether the command has the option --allow-missing.

    Raises:
        IncompleteError: a block failed.
    """
    if not report.failures:
        return
    blocks = ", ".join(str(f.block) for f in report.failures[:10])
    groups, total = _by_reason(report), len(report.failures) + len(report.reports)
    if len(groups) > 1:
        log_failures(step, report)
    reason = f"{'the first' if len(groups) > 1 else 'each'} with: {last(report.failures[0].reason)}"
    error = IncompleteError(
        f"{step}: {len(report.failures)} of {total} blocks failed (block {blocks}), {reason}; the "
        "others are committed: run the same command again to retry only the failed ones"
        f"{ALLOW_MISSING_HINT if allow else ''}"
    )
    for failures in groups:
        error.add_note(failures[0].reason)
    raise error


class NotYetError(Exception):
    """The next step depends on work that a dry run does not do."""
