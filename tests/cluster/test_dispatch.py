from __future__ import annotations

import _thread
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import ray

from regroup_cluster.dispatch.actor_pool import WorkerPool, worker_pool
from regroup_cluster.dispatch.blocks import BlockReport, DispatchReport, RetryPolicy
from regroup_cluster.dispatch.task_slots import dispatch_as_tasks
from regroup_cluster.errors import ClusterError, ClusterUsageError
from regroup_cluster.resources import WorkerResources
from tests.cluster.jumping_clock import jump_when
from tests.cluster.workers import (
    BrokenWork,
    Environment,
    FaultyWork,
    LargeArrays,
    attempts,
    crash,
    dispatch_to_actors,
    fail,
    hang,
)
from tests.kept_workers import lasting_pool

if TYPE_CHECKING:
    from tests.kept_workers import Kept

pytestmark = pytest.mark.usefixtures("local_ray")
TWO = WorkerResources(workers=2)
POLICY = RetryPolicy(attempts=3, deadline_s=60, ready_deadline_s=60)


class Recorder:
    """A Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.done: list[int] = []
        self.retries: list[int] = []
        self.failures: list[int] = []
        self.closed = 0

    def start(self, blocks: int) -> None:
        self.started.append(blocks)

    def update(self, report: BlockReport) -> None:
        self.done.append(report.block)

    def retry(self, block: int, reason: str) -> None:
        self.retries.append(block)

    def tick(self) -> None:
        pass

    def failure(self, block: int, reason: str) -> None:
        self.failures.append(block)

    def close(self) -> None:
        self.closed += 1


Dispatch = Callable[[FaultyWork, Sequence[int], RetryPolicy, Recorder], DispatchReport]


# Actors that the next test finds again: a process takes longer to start than to do its blocks.
_kept: Kept = {}


def as_actors(
    work: FaultyWork, blocks: Sequence[int], policy: RetryPolicy, seen: Recorder
) -> DispatchReport:
    with lasting_pool(TWO, _kept) as pool:
        return pool.dispatch(work, blocks, policy, seen)


def as_tasks(
    work: FaultyWork, blocks: Sequence[int], policy: RetryPolicy, seen: Recorder
) -> DispatchReport:
    return dispatch_as_tasks(work, blocks, TWO, policy, seen)


both_ways = pytest.mark.parametrize("dispatch", [as_actors, as_tasks])


def pids(folder: Path) -> set[int]:
    return {int(path.name.split(".")[2]) for path in folder.iterdir()}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].startswith(" Z")


def wait_until_dead(processes: set[int]) -> None:
    deadline = time.monotonic() + 60
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in processes if alive(pid)]


@both_ways
def test_every_block_runs_exactly_once(dispatch: Dispatch, tmp_path: Path) -> None:
    blocks, seen = [5, 3, 9, 0, 2, 11, 4], Recorder()
    report = dispatch(FaultyWork(tmp_path), blocks, POLICY, seen)
    assert [r.block for r in report.reports] == sorted(blocks)
    assert [r.samples for r in report.reports] == [10 + b for b in sorted(blocks)]
    assert report.failures == ()
    assert attempts(tmp_path) == Counter(blocks)
    assert (seen.started, sorted(seen.done), seen.closed) == ([7], sorted(blocks), 1)


@both_ways
def test_nothing_to_do(dispatch: Dispatch, tmp_path: Path) -> None:
    assert dispatch(FaultyWork(tmp_path), [], POLICY, Recorder()) == DispatchReport((), ())


@both_ways
def test_a_crash_and_an_exception_cost_an_attempt(dispatch: Dispatch, tmp_path: Path) -> None:
    seen = Recorder()
    report = dispatch(FaultyWork(tmp_path, {1: crash, 3: fail}), range(5), POLICY, seen)
    assert [r.block for r in report.reports] == list(range(5))
    assert report.failures == ()
    assert attempts(tmp_path) == Counter({0: 1, 1: 2, 2: 1, 3: 2, 4: 1})
    assert sorted(seen.retries) == [1, 3]


@both_ways
def test_poison_is_given_up_with_its_reason(dispatch: Dispatch, tmp_path: Path) -> None:
    work, seen = FaultyWork(tmp_path, {0: fail, 2: crash}, times=99), Recorder()
    report = dispatch(work, range(5), RetryPolicy(2, 60, 60), seen)
    assert [r.block for r in report.reports] == [1, 3, 4]
    raised, crashed = report.failures
    assert (raised.block, raised.attempts, crashed.block, crashed.attempts) == (0, 2, 2, 2)
    assert "Traceback (most recent call last)" in raised.reason
    assert raised.reason.strip().endswith("UnpicklableError: bad and luck")
    assert crashed.reason.startswith("the worker was lost: ")
    assert "\n" not in crashed.reason
    assert attempts(tmp_path) == Counter({0: 2, 1: 1, 2: 2, 3: 1, 4: 1})
    assert sorted(seen.failures) == [0, 2]


@both_ways
def test_a_hung_block_costs_its_deadline(
    dispatch: Dispatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, seen = FaultyWork(tmp_path, {0: hang}, times=99), Recorder()
    others = [1, 2, 3]
    jump_when(monkeypatch, lambda: int(sorted(seen.done) == others and attempts(tmp_path)[0] > 0))
    report = dispatch(work, range(4), RetryPolicy(1, 5000, 900, inf), seen)
    assert [r.block for r in report.reports] == others
    (failure,) = report.failures
    # A task may use the time to be placed, too.
    limit = 5000 if dispatch is as_actors else 5900
    assert failure.reason == f"the block was not done within its deadline of {limit} s"
    hung = next(int(path.name.split(".")[2]) for path in tmp_path.glob("0.*"))
    wait_until_dead({hung})


def test_other_blocks_go_first(tmp_path: Path) -> None:
    seen, one = Recorder(), WorkerResources(workers=1)
    dispatch_to_actors(FaultyWork(tmp_path, {0: fail}), range(4), one, POLICY, seen)
    assert seen.done == [1, 2, 3, 0]


def test_a_pool_reuses_its_processes_and_replaces_the_dead(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    first, second, third = (FaultyWork(folder) for folder in folders)
    with worker_pool(TWO) as pool:
        pool.dispatch(first, [0], POLICY, Recorder())
        pool.dispatch(second, [0], POLICY, Recorder())
        (pid,) = pids(folders[0])
        assert pids(folders[1]) == {pid}
        os.kill(pid, 9)
        wait_until_dead({pid})
        report = pool.dispatch(third, [0, 1], POLICY, Recorder())
        assert len(report.reports) == 2
        assert pid not in pids(folders[2])
    wait_until_dead(pids(folders[2]))


def test_tasks_find_room_beside_a_pool(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with worker_pool(TWO) as pool:
        for _ in range(2):
            pool.dispatch(FaultyWork(tmp_path / "a"), range(2), POLICY, Recorder())
            report = as_tasks(FaultyWork(tmp_path / "b"), range(3), POLICY, Recorder())
            assert len(report.reports) == 3


def test_a_worker_that_cannot_be_built_ends_the_job(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no worker could be started") as error:
        dispatch_to_actors(BrokenWork(fail, tmp_path), [0], TWO, POLICY, Recorder())
    assert str(error.value).endswith("UnpicklableError: bad and luck")
    assert error.value.__notes__[0].startswith("Traceback")
    assert len(list(tmp_path.iterdir())) == 3
    assert not isinstance(error.value, ClusterUsageError)


def refuse() -> None:
    raise ClusterUsageError("the bank is of another model: build it again")


def test_a_usage_error_of_the_work_is_raised_at_once(tmp_path: Path) -> None:
    with pytest.raises(ClusterUsageError) as error:
        dispatch_to_actors(BrokenWork(refuse, tmp_path), [0], TWO, POLICY, Recorder())
    assert str(error.value) == "the bank is of another model: build it again"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_worker_that_dies_while_it_is_built_is_replaced(tmp_path: Path) -> None:
    work = BrokenWork(crash, tmp_path, healthy_after=1)
    report = dispatch_to_actors(work, [0], TWO, POLICY, Recorder())
    assert [r.block for r in report.reports] == [0]


def test_workers_that_never_find_room_do_not_hang_the_job(tmp_path: Path) -> None:
    many = WorkerResources(workers=5)
    report = dispatch_to_actors(FaultyWork(tmp_path), range(6), many, POLICY, Recorder())
    assert len(report.reports) == 6


def test_no_room_at_all_ends_the_job(tmp_path: Path) -> None:
    whole = WorkerResources(workers=1, cpus=2)
    with worker_pool(whole) as pool:
        pool.dispatch(FaultyWork(tmp_path), [0], POLICY, Recorder())
        with pytest.raises(ClusterError, match=r"ready within 1 s: .* no capacity for 1 CPU"):
            dispatch_to_actors(FaultyWork(tmp_path), [1], TWO, RetryPolicy(3, 60, 1), Recorder())


def test_threads_follow_the_cpus_of_a_worker(tmp_path: Path) -> None:
    share = WorkerResources(workers=1, cpus=2)
    dispatch_to_actors(Environment(tmp_path), [0], share, POLICY, Recorder())
    assert (tmp_path / "threads-0").read_text() == "2 2"


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_workers_keep_their_memory_between_blocks(tmp_path: Path) -> None:
    """The first array is written to pages of the system, the next to its own."""
    share = WorkerResources(workers=1)
    dispatch_to_actors(LargeArrays(tmp_path), range(3), share, POLICY, Recorder())
    first, *others = (int((tmp_path / f"faults-{block}").read_text()) for block in range(3))
    assert first > 50 > max(others)


def test_an_interruption_kills_the_workers(tmp_path: Path) -> None:
    def interrupt() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        _thread.interrupt_main()
        while not ended.wait(10):  # an interruption within a destructor is lost: Python ignores it
            _thread.interrupt_main()

    seen, ended = Recorder(), threading.Event()
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        dispatch_to_actors(FaultyWork(tmp_path, {0: hang, 1: hang}), range(3), TWO, POLICY, seen)
    ended.set()
    wait_until_dead(pids(tmp_path))
    assert seen.closed == 1


def test_an_unavailable_actor_is_asked_again_and_kept(tmp_path: Path) -> None:
    from regroup_cluster.dispatch.actor_slots import ActorDispatch, ActorSlots
    from regroup_cluster.dispatch.worker_log import DispatchLabel

    with worker_pool(WorkerResources(workers=1)) as pool:
        begun = ActorDispatch(FaultyWork(tmp_path), DispatchLabel(), 60)
        slots = ActorSlots(pool._actors, pool._actor_class.remote, begun, pool._capacity)
        run(slots, 0)
        ref = slots.start(1, 1)
        ray.get(ref)
        slots.finished(ref, ray.exceptions.ActorUnavailableError("no answer", None))
        run(slots, 2)
    assert len(pids(tmp_path)) == 1


def run(slots: object, block: int) -> None:
    from regroup_cluster.dispatch.actor_slots import ActorSlots

    assert isinstance(slots, ActorSlots)
    while not slots.tend(1):
        time.sleep(0.05)
    ref = slots.start(block, 1)
    assert ray.get(ref).block == block
    slots.finished(ref, None)


@pytest.mark.parametrize("policy", [{"attempts": 0}, {"deadline_s": 0}, {"ready_deadline_s": -1}])
def test_meaningless_policies_are_refused(policy: dict[str, float]) -> None:
    with pytest.raises(ClusterUsageError):
        RetryPolicy(**policy)  # type: ignore[arg-type]


def test_resources_that_fit_nowhere_are_refused(tmp_path: Path) -> None:
    work, share = FaultyWork(tmp_path), WorkerResources(cpus=3)
    with pytest.raises(ClusterUsageError, match="3 CPUs per worker"):
        dispatch_as_tasks(work, [0], share, POLICY, Recorder())
    with pytest.raises(ClusterUsageError, match="3 CPUs per worker"):
        dispatch_to_actors(work, [0], share, POLICY, Recorder())


def test_default_pool_fills_the_cluster() -> None:
    with worker_pool(WorkerResources()) as pool:
        assert isinstance(pool, WorkerPool)
        assert (pool.resources.workers, pool.resources.cpus, pool.resources.gpus) == (2, 1, 0)
