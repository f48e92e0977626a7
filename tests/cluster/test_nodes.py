"""Nodes that are lost, that hang, that join and that differ, on a Ray of several nodes."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from math import inf
from pathlib import Path

import pytest

from regroup_cluster.dispatch.blocks import RetryPolicy
from regroup_cluster.resources import WorkerResources
from tests.cluster.jumping_clock import JUMP_S
from tests.cluster.nodes import (
    LATER,
    PATIENCE_S,
    Lab,
    Outcome,
    StoredWork,
    Way,
    lab,
    send,
    wait_for,
)

pytestmark = pytest.mark.timeout(300)
BOTH: list[Way] = ["actors", "tasks"]
both_ways = pytest.mark.parametrize("way", BOTH)
AUTO = WorkerResources()
# Replacements may wait for a place for longer than any test: they must not be what ends it.
POLICY = RetryPolicy(3, 300, 300, straggler_factor=inf)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A head without work; tests add the nodes that they need."""
    with lab(tmp_path_factory.mktemp("home"), "127.0.3.1") as started:
        yield started


def result(future: Future[Outcome]) -> Outcome:
    return future.result(2 * PATIENCE_S)


@both_ways
def test_blocks_of_a_lost_node_run_elsewhere(several: Lab, way: Way, tmp_path: Path) -> None:
    gone, left = several.have(2)
    work = StoredWork(tmp_path, 6, held=None)
    future = several.dispatch(way, work, WorkerResources(workers=2), POLICY)
    wait_for(lambda: work.nodes() == {gone, left}, "a block on either node")
    (lost,) = [block for block, node, _, _ in work.attempts() if node == gone]
    several.lose(gone)
    work.go()
    outcome = result(future)
    work.check(outcome)
    assert {work.done_by(block) for block in range(6)} == {left}
    assert [block for block, _ in outcome.retries] == [lost]
    assert outcome.retries[0][1].startswith("the worker was lost: ")
    assert Counter(block for block, *_ in work.attempts()) == Counter([*range(6), lost])


@both_ways
def test_a_node_that_joins_gets_work(several: Lab, way: Way, tmp_path: Path) -> None:
    (old,) = several.have(1)
    work = StoredWork(tmp_path, 6, held=None)
    future = several.dispatch(way, work, AUTO, POLICY)
    wait_for(lambda: work.nodes() == {old}, "the first block")
    new = several.add()
    wait_for(lambda: work.nodes() == {old, new}, "a block on the new node")
    work.go()
    outcome = result(future)
    work.check(outcome)
    assert outcome.retries == []


def test_an_automatic_pool_shrinks_and_outlives_its_nodes(several: Lab, tmp_path: Path) -> None:
    nodes = several.have(2)
    work = StoredWork(tmp_path, 4, held=None)
    # No worker may wait for a place that is gone for longer than this, or the work would end.
    policy = RetryPolicy(3, 300, 60, straggler_factor=inf)
    future = several.dispatch("actors", work, AUTO, policy)
    wait_for(lambda: work.nodes() == set(nodes), "a block on either node")
    for node in nodes:
        several.lose(node)
    new = several.add()
    work.go()
    outcome = result(future)
    work.check(outcome)
    assert {work.done_by(block) for block in range(4)} == {new}
    assert len(outcome.retries) == 2


@both_ways
def test_a_hung_node_costs_time_not_the_job(several: Lab, way: Way, tmp_path: Path) -> None:
    hung, left = several.have(2)
    work = StoredWork(tmp_path, 4, held=None)
    # An actor is given up at its deadline. Ray may queue further tasks on the hung node: they are
    # freed when it gives the node up, which its deadline must leave time for, as the default does.
    policy = RetryPolicy(3, JUMP_S / 2 if way == "actors" else 60, 60, inf)
    future = several.dispatch(way, work, WorkerResources(workers=2), policy)
    wait_for(lambda: work.nodes() == {hung, left}, "a block on either node")
    stopped = several.family(hung)
    try:
        send(stopped, signal.SIGSTOP)
        (lost,) = [block for block, node, _, _ in work.attempts() if node == hung]
        work.go()
        if way == "actors":
            wait_for(lambda: work.element.missing() == [lost], "all other blocks")
            (tmp_path / LATER).touch()
        outcome = result(future)
        over = f"not done within its deadline of {JUMP_S / 2:g} s"
        reason = over if way == "actors" else "the worker was lost"
        assert all(reason in told for _, told in outcome.retries)
        assert lost in {block for block, _ in outcome.retries}
        assert {work.done_by(block) for block in range(4)} == {left}
        work.check(outcome)
    finally:
        # The late attempt goes on, if Ray lets it: nothing may change.
        send(stopped, signal.SIGCONT)
        several.lose(hung)
    work.check(outcome)


def test_faster_workers_take_more_blocks(several: Lab, tmp_path: Path) -> None:
    slow, fast = several.have(2)
    work = StoredWork(tmp_path, 24, held=(0, 1), slow=slow)
    future = several.dispatch("actors", work, AUTO, POLICY)
    wait_for(lambda: work.nodes() == {slow, fast}, "a block on either node")
    work.go()
    work.check(result(future))
    done = Counter(work.done_by(block) for block in range(24))
    assert done[fast] >= 2 * done[slow] > 0


@both_ways
def test_a_straggler_is_started_elsewhere(several: Lab, way: Way, tmp_path: Path) -> None:
    several.have(2)
    work = StoredWork(tmp_path, 4, held=(0,))
    policy = RetryPolicy(1, 300, 300, straggler_s=1)
    outcome = result(several.dispatch(way, work, AUTO, policy))
    work.check(outcome)
    assert outcome.retries == []
    assert Counter(block for block, *_ in work.attempts()) == Counter([0, *range(4)])
    assert len({node for block, node, *_ in work.attempts() if block == 0}) == 2


def test_workers_share_the_gpus_of_a_mixed_cluster(several: Lab, tmp_path: Path) -> None:
    several.have(1)
    node = several.add(num_cpus=2, num_gpus=2)
    for share, workers in ((None, 2), (0.5, 4)):
        work = StoredWork(tmp_path / str(share), workers + 1, held=None)
        work.folder.mkdir()
        future = several.dispatch("actors", work, WorkerResources(gpus=share), POLICY)
        wait_for(lambda work=work, n=workers: len(work.attempts()) == n, "all workers")  # type: ignore[misc]
        assert Counter(gpu for *_, gpu in work.attempts()) == Counter(["0", "1"] * (workers // 2))
        assert work.nodes() == {node}
        work.go()
        work.check(result(future))
    several.lose(node)
