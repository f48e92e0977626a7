"""The jobs behind the benchmarks of workers and of Ray's share, by a pool without Ray."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from benchmarks.extract_job import Counted, CountedWorker, SmallJob
from benchmarks.overhead import InTurn
from benchmarks.plain_processes import plain_processes
from regroup_cluster.dispatch.attempt import measured
from regroup_cluster.dispatch.blocks import BlockOutcome, BlockReport, DispatchReport, RetryPolicy
from regroup_cluster.dispatch.progress import Progress
from regroup_cluster.dispatch.stopwatch import BlockClock

PAUSE_S = 0.25


class HerePool:
    """A pool that does the blocks in this process, and dawdles before each."""

    resources = SimpleNamespace(workers=1)

    def dispatch(
        self, work: Counted, blocks: Iterable[int], policy: RetryPolicy, progress: Progress
    ) -> DispatchReport:
        del policy
        worker, reports = work.open(), list[BlockReport]()
        for block in blocks:
            time.sleep(PAUSE_S)
            reports.append(measured(worker, block))
            progress.update(reports[-1])
        return DispatchReport(tuple(reports), ())


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> SmallJob:
    found = SmallJob(tmp_path_factory.mktemp("job"), 3, 4)
    found.plain(1)  # what is loaded once
    return found


def test_the_turns_of_the_plain_loop_do_not_count_for_the_pool_nor_its_pauses_for_the_loop(
    job: SmallJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = CountedWorker.process

    def slowly(worker: CountedWorker, block: int, clock: BlockClock) -> BlockOutcome:
        """As a real block, which takes longer than what is around it."""
        time.sleep(2 * PAUSE_S)
        return process(worker, block, clock)

    monkeypatch.setattr(CountedWorker, "process", slowly)
    started = time.perf_counter()
    ours, plain = job.in_turn(HerePool(), 1)  # type: ignore[arg-type]
    wall, pauses = time.perf_counter() - started, 3 * PAUSE_S
    assert pauses < ours.seconds
    assert 0 < plain.seconds < wall - pauses
    # However busy the machine: no second counts twice.
    assert ours.seconds + plain.seconds <= wall
    assert ours.processor_s is not None
    assert plain.processor_s is not None
    assert min(ours.processor_s, plain.processor_s) > 0
    assert pauses / ours.seconds <= job.outside[-1] + 1e-9


def test_both_halves_are_of_one_run_whichever_is_asked_first(
    job: SmallJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = iter([("a", 1), ("b", 2), ("c", 3)])
    monkeypatch.setattr(job, "in_turn", lambda *_: next(runs))
    halves = InTurn(job, HerePool())  # type: ignore[arg-type]
    asked = [halves.half(which) for which in (0, 1, 1, 0)]
    assert asked == ["a", 1, 2, "b"]


def test_plain_processes_do_all_blocks_between_them(job: SmallJob) -> None:
    with plain_processes(2) as both:
        taken = both.run(job)
    assert taken.seconds > 0
    assert taken.processor_s is not None
    assert taken.processor_s > 0
