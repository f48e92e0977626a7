"""Two attempts at one block at once, near the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import pytest

from regroup_cluster.dispatch.actor_slots import ActorDispatch, ActorHandle, ActorSlots
from regroup_cluster.dispatch.blocks import RetryPolicy
from regroup_cluster.dispatch.task_slots import dispatch_as_tasks
from regroup_cluster.dispatch.worker_log import DispatchLabel
from regroup_cluster.errors import ClusterUsageError
from regroup_cluster.resources import Capacity, ResolvedResources
from regroup_cluster.workers.bank import BankWork
from tests.cluster.jumping_clock import JUMP_S, jump_when
from tests.cluster.test_dispatch import (
    TWO,
    Dispatch,
    Recorder,
    both_ways,
    wait_until_dead,
)
from tests.cluster.workers import (
    FailInPairs,
    FaultyWork,
    Overwriting,
    UntilTheLast,
    attempts,
    hang,
    has_begun,
    nap,
)

pytestmark = pytest.mark.usefixtures("local_ray")
# Only a clock that jumps makes a straggler of a block, not a busy machine.
SOON = RetryPolicy(1, 1e9, 900, straggler_factor=1, straggler_s=JUMP_S / 2)


@both_ways
def test_the_first_answer_wins_and_counts_once(
    dispatch: Dispatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Recorder()
    jump_when(monkeypatch, lambda: int(sorted(seen.done) == [0, 2, 3] and has_begun(tmp_path, 1)))
    report = dispatch(FaultyWork(tmp_path, {1: hang}), range(4), SOON, seen)
    assert [r.block for r in report.reports] == list(range(4))
    assert report.failures == ()
    assert (seen.retries, seen.failures, sorted(seen.done)) == ([], [], list(range(4)))
    assert attempts(tmp_path) == Counter([0, 1, 1, 2, 3])
    wait_until_dead({int(next(tmp_path.glob("1.0.*")).name.split(".")[2])})


@both_ways
def test_two_attempts_at_once_are_one_try(
    dispatch: Dispatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, seen = FaultyWork(tmp_path, {0: FailInPairs(tmp_path)}, times=99), Recorder()
    policy = replace(SOON, attempts=2)

    def tries() -> int:
        """How many tries at block 0 were begun, once the others are done."""
        return (attempts(tmp_path)[0] + 1) // 2 if sorted(seen.done) == [1, 2] else 0

    jump_when(monkeypatch, tries)
    report = dispatch(work, range(3), policy, seen)
    (failure,) = report.failures
    assert "UnpicklableError" in failure.reason
    assert (failure.block, failure.attempts) == (0, 2)
    assert attempts(tmp_path) == Counter([0] * 4 + [1, 2])


@both_ways
def test_no_duplicates_where_the_policy_says_so(dispatch: Dispatch, tmp_path: Path) -> None:
    never = RetryPolicy(1, 60, 60, straggler_factor=inf, straggler_s=0)
    dispatch(FaultyWork(tmp_path, {0: nap}), range(4), never, Recorder())
    assert attempts(tmp_path) == Counter(range(4))


@both_ways
def test_no_duplicates_of_what_is_not_duplicable(
    dispatch: Dispatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BankWork.duplicable is False
    seen = Recorder()
    jump_when(monkeypatch, lambda: int(len(seen.done) >= 3))
    dispatch(Overwriting(tmp_path, {0: nap}), range(4), SOON, seen)
    assert attempts(tmp_path) == Counter(range(4))


def test_no_duplicates_while_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Recorder()
    jump_when(monkeypatch, lambda: int(len(seen.done) >= 2))
    work = FaultyWork(tmp_path, {0: UntilTheLast(tmp_path, 11)})
    dispatch_as_tasks(work, range(12), TWO, SOON, seen)
    begun = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    blocks = [int(path.name.split(".")[0]) for path in begun]
    while_others_waited = blocks[: blocks.index(11) + 1]
    assert Counter(while_others_waited) == Counter(range(12))


@dataclass
class Call:
    """Stands for an actor's method; remembers the blocks."""

    blocks: list[int]

    def remote(self, block: int, *others: object) -> str:
        self.blocks.append(block)
        return f"answer of {block}"


class Actor:
    def __init__(self) -> None:
        self.process = Call([])


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
def test_a_duplicate_goes_to_another_node_if_one_is_idle(order: tuple[int, ...]) -> None:
    near, same, far = (ActorHandle(Actor(), node=node) for node in "aab")
    create: Callable[[], Any] = Actor
    begun = ActorDispatch(FaultyWork(Path()), DispatchLabel(), 60)
    handles = [(near, same, far)[i] for i in order]
    slots = ActorSlots(handles, create, begun, Capacity(ResolvedResources(3, 1, 0)))
    near.state = "idle"
    first = slots.start(7, 1)
    same.state = far.state = "idle"
    slots.start(7, 2, first)
    assert (far.actor.process.blocks, same.state) == ([7], "idle")
    # None elsewhere: the same node is better than none.
    slots.start(7, 3, first)
    assert same.actor.process.blocks == [7]


@pytest.mark.parametrize("policy", [{"straggler_factor": 0.5}, {"straggler_s": -1}])
def test_meaningless_policies_are_refused(policy: dict[str, float]) -> None:
    with pytest.raises(ClusterUsageError, match="straggler"):
        RetryPolicy(**policy)  # type: ignore[arg-type]
