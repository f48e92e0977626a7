"""Blocks as stateless Ray tasks."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from regroup_cluster.dispatch.actor_pool import release_open_pools
from regroup_cluster.dispatch.scheduler import drive
from regroup_cluster.dispatch.worker_log import Label, attempt
from regroup_cluster.resources import ResolvedResources, Room, WorkerResources, resolve_on_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ray.exceptions import RayError

    from regroup_cluster.dispatch.blocks import BlockReport, DispatchReport, RetryPolicy
    from regroup_cluster.dispatch.progress import Progress


def dispatch_as_tasks(
    function: Callable[[int], BlockReport],
    blocks: Sequence[int],
    resources: WorkerResources,
    policy: RetryPolicy,
    progress: Progress,
    label: Label | None = None,
) -> DispatchReport:
    """Run `blocks` as stateless Ray tasks, on CPUs unless `resources` names a GPU share.

    The idle workers of this process's pools are let go first: they hold the CPUs that the tasks
    need. A `function` with an attribute `create_only` that is False is never run twice at once.
    `label` names the dispatch in the workers' logs.

    Raises:
        ClusterUsageError: `resources` do not fit.
    """
    share = resolve_on_cluster(replace(resources, gpus=resources.gpus or 0))
    release_open_pools()
    if not getattr(function, "create_only", True):
        policy = replace(policy, straggler_factor=inf)
    slots = TaskSlots(function, share, label or Label(), policy.ready_deadline_s)
    return drive(slots, blocks, policy, progress)


_attempt: Any = ray.remote(attempt)

# A node that has just lost a task may be gone already: Ray takes up to half a minute to say so.
SUSPECT_S = 30.0


class TaskSlots:
    """As many slots as the cluster can run tasks at once.

    Ray does not say when a task has found a process, so a block's deadline runs from its
    submission and allows `ready_deadline_s` for the wait, which on a shared cluster may be long.

    Each task is sent to a node that is chosen here. Left to itself Ray may queue tasks on a node
    that hangs, and for many minutes takes neither those nor the ones that run there for lost.
    """

    def __init__(
        self,
        function: Callable[[int], BlockReport],
        share: ResolvedResources,
        label: Label,
        placement_s: float,
    ) -> None:
        self.placement_s = placement_s
        self._room, self._label = Room(share), label
        # The node that each task was sent to; None: to whichever comes to have room.
        self._running: dict[Any, str | None] = {}
        # Nodes that lost a task, and until when they get none if others have room.
        self._suspected: dict[str, float] = {}
        self._function = ray.put(function)
        # Ray's own retries would run outside the attempts and deadlines of the driver.
        self._options: dict[str, Any] = {
            "name": "regroup-block",
            "num_cpus": share.cpus,
            "num_gpus": share.gpus,
            "max_retries": 0,
            "runtime_env": {"env_vars": share.thread_environment()},
        }

    def tend(self, wanted: int) -> int:
        """Free slots; a task needs none to be kept up."""
        return min(self._room.workers(), wanted) - len(self._running)

    def awaited(self) -> list[Any]:
        """Nothing: every slot is ready."""
        return []

    def start(self, block: int, number: int, apart_from: Any = None) -> Any:
        """Submit the task of `block` to the node with the most free places."""
        node = self._place(self._running.get(apart_from))
        # Soft: should the node be lost meanwhile, the task runs elsewhere.
        where = NodeAffinitySchedulingStrategy(node, soft=True) if node else "DEFAULT"
        task: Any = _attempt.options(scheduling_strategy=where, **self._options)
        ref = task.remote(self._function, block, number, self._label)
        self._running[ref] = node
        return ref

    def _place(self, shunned: str | None) -> str | None:
        taken = Counter(self._running.values())
        free = {node: room - taken[node] for node, room in self._room.places().items()}
        now = time.monotonic()
        trusted = [node for node in free if self._suspected.get(node, 0.0) <= now]
        open_nodes = [node for node in trusted if free[node] > 0]
        return max(open_nodes, key=lambda node: (node != shunned, free[node]), default=None)

    def lost(self) -> list[Any]:
        """Tasks on nodes that Ray has given up."""
        living = self._room.places()
        return [ref for ref, node in self._running.items() if node and node not in living]

    def finished(self, ref: Any, error: RayError | None) -> None:
        """The slot is free, whatever became of the task; a node that lost it is suspected."""
        node = self._running.pop(ref, None)
        if error is not None and node is not None:
            self._suspected[node] = time.monotonic() + SUSPECT_S

    def abandon(self, ref: Any) -> None:
        """Kill the task's process."""
        ray.cancel(ref, force=True)
        self._running.pop(ref, None)
