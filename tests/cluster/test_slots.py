"""Decisions of the slots that need no cluster: a stand-in for `Room`, actors that do nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayError

from regroup_cluster import resources
from regroup_cluster.dispatch import task_slots as tasks
from regroup_cluster.dispatch.actor_slots import ActorSlots, Host, HostedJob
from regroup_cluster.dispatch.task_slots import TaskSlots
from regroup_cluster.dispatch.worker_log import Label
from regroup_cluster.resources import ResolvedResources, Room
from tests.cluster.workers import Job

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
    monkeypatch.setattr("regroup_cluster.dispatch.actor_slots.ray.put", lambda value: value)
    return found


def test_room_is_looked_at_again(cluster: Cluster) -> None:
    room = Room(AUTO)
    assert (room.workers(), room.places()) == (3, {"a": 2, "b": 1, "head": 0})
    cluster.nodes["c"] = {"CPU": 4.0}
    assert room.workers() == 3
    cluster.now += resources.LOOK_AGAIN_S
    assert room.workers() == 7


def test_a_number_that_was_asked_for_stays(cluster: Cluster) -> None:
    room = Room(ResolvedResources(9, 1, 0))
    assert room.workers() == 9
    del cluster.nodes["a"]
    cluster.now += resources.LOOK_AGAIN_S
    assert room.workers() == 9


def test_one_worker_waits_where_all_nodes_went(cluster: Cluster) -> None:
    cluster.nodes.clear()
    assert Room(AUTO).workers() == 1


class Bytes:
    def hex(self) -> str:
        return "00"


def slots(hosts: list[Host]) -> ActorSlots:
    job: Any = HostedJob(lambda: Job(Path()), Label(), 60)
    object.__setattr__(job, "factory", Bytes())
    return ActorSlots(hosts, object, job, Room(AUTO))


def test_actors_without_a_place_are_not_waited_for(cluster: Cluster) -> None:
    hosts = [Host(name) for name in ("at work", "asked first", "asked last")]
    found = slots(hosts)
    del cluster.nodes["b"]
    for order, host in enumerate(hosts):
        host.state, host.asked, host.again = "starting", time.monotonic() + order, float("inf")
    hosts[0].state = "busy"
    found.tend(3)
    assert [host.actor for host in hosts] == ["at work", "asked first"]
    assert cluster.killed == ["asked last"]


@pytest.fixture
def task_slots(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> TaskSlots:
    clock = SimpleNamespace(monotonic=lambda: cluster.now)
    monkeypatch.setattr(tasks, "time", clock)
    monkeypatch.setattr("regroup_cluster.dispatch.task_slots.ray.put", lambda value: value)
    sent = SimpleNamespace(remote=lambda _, block, number, label: f"block {block}")
    monkeypatch.setattr(tasks, "NodeAffinitySchedulingStrategy", lambda *_, **__: None)
    monkeypatch.setattr(tasks, "_attempt", SimpleNamespace(options=lambda **_: sent))
    return TaskSlots(lambda block: None, AUTO, Label(), 60)  # type: ignore[arg-type, return-value]


def test_a_node_that_lost_a_task_gets_none_until_ray_knows_of_it(
    cluster: Cluster, task_slots: TaskSlots
) -> None:
    cluster.nodes = {name: {"CPU": 1.0} for name in ("a", "b")}
    refs = [task_slots.start(block, 1) for block in (0, 1)]
    assert list(task_slots._running.values()) == ["a", "b"]
    task_slots.finished(refs[0], RayError("gone"))
    task_slots.start(2, 1)  # Ray still counts the node among the living.
    del cluster.nodes["a"]
    cluster.now += resources.LOOK_AGAIN_S
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
    hosts = [Host(name, node=name) for name in ("a", "b")]
    found = slots(hosts)
    for host in hosts:
        host.state, host.ref = "busy", f"answer of {host.node}"
    assert found.lost() == []
    del cluster.nodes["b"]
    cluster.now += resources.LOOK_AGAIN_S
    assert found.lost() == ["answer of b"]
