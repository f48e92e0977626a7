"""Decisions of the slots that need no cluster: a stand-in for Ray, actors that do nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import RayError

from regroup_cluster import resources
from regroup_cluster.dispatch import task_slots as tasks
from regroup_cluster.dispatch.actor_slots import ActorDispatch, ActorHandle, ActorSlots
from regroup_cluster.dispatch.task_slots import TaskSlots
from regroup_cluster.dispatch.worker_log import DispatchLabel
from regroup_cluster.resources import Capacity, ResolvedResources
from tests.cluster.workers import FaultyWork

AUTO = ResolvedResources(2, 1, 0, auto=True)


@dataclass
class Cluster:
    """Living nodes, by id, and a clock; stand in for Ray's."""

    nodes: dict[str, dict[str, float]]
    now: float = 0.0
    killed: list[object] = field(default_factory=list)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster({"a": {"CPU": 2.0}, "b": {"CPU": 1.0}, "head": {}})
    monkeypatch.setattr(resources, "_living_nodes", lambda: dict(found.nodes))
    monkeypatch.setattr(resources, "time", SimpleNamespace(monotonic=lambda: found.now))
    monkeypatch.setattr("regroup_cluster.dispatch.actor_slots.ray.kill", found.killed.append)
    monkeypatch.setattr("regroup_cluster.dispatch.actor_slots.ray.put", lambda value: Reference())
    return found


def test_the_capacity_follows_the_cluster(cluster: Cluster) -> None:
    capacity = Capacity(AUTO)
    assert (capacity.workers(), capacity.per_node()) == (3, {"a": 2, "b": 1, "head": 0})
    cluster.nodes["c"] = {"CPU": 4.0}
    assert capacity.workers() == 3
    cluster.now += resources.REFRESH_S
    assert capacity.workers() == 7


def test_a_number_that_was_asked_for_stays(cluster: Cluster) -> None:
    capacity = Capacity(ResolvedResources(9, 1, 0))
    assert capacity.workers() == 9
    del cluster.nodes["a"]
    cluster.now += resources.REFRESH_S
    assert capacity.workers() == 9


def test_one_worker_waits_where_all_nodes_went(cluster: Cluster) -> None:
    cluster.nodes.clear()
    assert Capacity(AUTO).workers() == 1


class Reference:
    def hex(self) -> str:
        return "00"


def slots(actors: list[ActorHandle]) -> ActorSlots:
    begun = ActorDispatch(FaultyWork(Path()), DispatchLabel(), 60)
    return ActorSlots(actors, object, begun, Capacity(AUTO))


def test_actors_without_a_place_are_not_waited_for(cluster: Cluster) -> None:
    handles = [ActorHandle(name) for name in ("at work", "asked first", "asked last")]
    found = slots(handles)
    del cluster.nodes["b"]
    for order, handle in enumerate(handles):
        handle.state, handle.again = "starting", float("inf")
        handle.asked = time.monotonic() + order
    handles[0].state = "busy"
    found.tend(3)
    assert [handle.actor for handle in handles] == ["at work", "asked first"]
    assert cluster.killed == ["asked last"]


@pytest.fixture
def task_slots(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> TaskSlots:
    clock = SimpleNamespace(monotonic=lambda: cluster.now)
    monkeypatch.setattr(tasks, "time", clock)
    monkeypatch.setattr("regroup_cluster.dispatch.task_slots.ray.put", lambda value: Reference())
    sent = SimpleNamespace(remote=lambda dispatch, sent, block, number, code: f"block {block}")
    monkeypatch.setattr(tasks, "NodeAffinitySchedulingStrategy", lambda *_, **__: None)
    monkeypatch.setattr(tasks, "_task", SimpleNamespace(options=lambda **_: sent))
    return TaskSlots(FaultyWork(Path()), AUTO, DispatchLabel(), 60)


def test_a_node_that_lost_a_task_gets_none_until_ray_knows_of_it(
    cluster: Cluster, task_slots: TaskSlots
) -> None:
    cluster.nodes = {name: {"CPU": 1.0} for name in ("a", "b")}
    refs = [task_slots.start(block, 1) for block in (0, 1)]
    assert list(task_slots._running.values()) == ["a", "b"]
    task_slots.finished(refs[0], RayError("gone"))
    task_slots.start(2, 1)  # Ray still counts the node among the living.
    del cluster.nodes["a"]
    cluster.now += resources.REFRESH_S
    assert task_slots._running["block 2"] is None
    assert task_slots.lost() == []


def test_a_suspicion_passes(cluster: Cluster, task_slots: TaskSlots) -> None:
    cluster.nodes = {"a": {"CPU": 1.0}}
    task_slots.finished(task_slots.start(0, 1), RayError("its process was killed"))
    cluster.now += tasks.SUSPECT_S
    task_slots.start(1, 1)
    assert task_slots._running == {"block 1": "a"}


def test_a_task_that_answers_says_nothing_against_its_node(
    cluster: Cluster, task_slots: TaskSlots
) -> None:
    cluster.nodes = {"a": {"CPU": 1.0}}
    task_slots.finished(task_slots.start(0, 1), None)
    task_slots.start(1, 1)
    assert task_slots._running == {"block 1": "a"}


def test_blocks_on_nodes_that_went_are_lost(cluster: Cluster) -> None:
    handles = [ActorHandle(name, node=name) for name in ("a", "b")]
    found = slots(handles)
    for handle in handles:
        handle.state, handle.ref = "busy", f"answer of {handle.node}"
    assert found.lost() == []
    del cluster.nodes["b"]
    cluster.now += resources.REFRESH_S
    assert found.lost() == ["answer of b"]
