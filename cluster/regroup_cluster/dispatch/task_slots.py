"""Blocks as stateless Ray tasks."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from regroup_cluster.code_version import code_digests
from regroup_cluster.dispatch.actor_pool import release_open_pools
from regroup_cluster.dispatch.attempt import OpenedWork, attempt
from regroup_cluster.dispatch.code_guard import guarded_task
from regroup_cluster.dispatch.scheduler import drive
from regroup_cluster.dispatch.worker_log import DispatchLabel
from regroup_cluster.resources import Capacity, resolve_on_cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray.exceptions import RayError

    from regroup_cluster.dispatch.attempt import AttemptError
    from regroup_cluster.dispatch.blocks import BlockReport, BlockWork, DispatchReport, RetryPolicy
    from regroup_cluster.dispatch.progress import Progress
    from regroup_cluster.resources import ResolvedResources, WorkerResources

# A node that has just lost a task may be gone already: Ray takes up to half a minute to say so.
SUSPECT_S = 30.0

_opened = OpenedWork()


def dispatch_as_tasks(
    work: BlockWork,
    blocks: Sequence[int],
    resources: WorkerResources,
    policy: RetryPolicy,
    progress: Progress,
    label: DispatchLabel | None = None,
) -> DispatchReport:
    """Run `work` on `blocks` as Ray tasks, on CPUs unless `resources` names a GPU share.

    The idle workers of this process's pools are released first: they hold the CPUs that the tasks
    need.

    Args:
        work: what the tasks do; a worker process opens it once.
        blocks: indices of the blocks.
        resources: of each task.
        policy: attempts and deadlines.
        progress: receives every outcome.
        label: names the dispatch in the workers' logs.

    Raises:
        ClusterUsageError: `resources` do not fit the cluster.
    """
    share = resolve_on_cluster(replace(resources, gpus=resources.gpus or 0))
    release_open_pools()
    slots = TaskSlots(work, share, label or DispatchLabel(), policy.ready_deadline_s)
    return drive(slots, blocks, policy.for_work(work), progress)


def attempt_in_task(
    dispatch: str, work: BlockWork, block: int, number: int, label: DispatchLabel
) -> BlockReport | AttemptError:
    """Run an attempt in the process of a task, which keeps the worker for the next one."""
    return attempt(partial(_opened.worker, dispatch, work), block, number, label)


_task: Any = ray.remote(guarded_task)


class TaskSlots:
    """As many slots as the cluster can run tasks at once.

    Ray does not say when a task has found a process, so a block's deadline runs from its
    submission and allows `ready_deadline_s` for the wait, which on a shared cluster may be long.

    Each task is sent to a node that is chosen here. Left to itself Ray may queue tasks on a node
    that hangs, and for many minutes declares neither those nor its running ones lost.
    """

    def __init__(
        self, work: BlockWork, share: ResolvedResources, label: DispatchLabel, placement_s: float
    ) -> None:
        self.placement_s = placement_s
        self._capacity = Capacity(share)
        # The node that each task was sent to; None: whichever has capacity first.
        self._running: dict[Any, str | None] = {}
        # Nodes that lost a task, and until when they get none if others have capacity.
        self._suspected: dict[str, float] = {}
        # In a list: an argument that is a reference itself is unpickled before the code is checked.
        self._sent = [ray.put((attempt_in_task, work, label))]
        self._id = self._sent[0].hex()
        # Ray's own retries would run outside the attempts and deadlines of the driver.
        self._options: dict[str, Any] = {
            "name": "regroup-block",
            "num_cpus": share.cpus,
            "num_gpus": share.gpus,
            "max_retries": 0,
            "runtime_env": {"env_vars": share.thread_environment()},
        }

    def tend(self, wanted: int) -> int:
        """Return the number of free slots; a task needs none to be kept up."""
        return min(self._capacity.workers(), wanted) - len(self._running)

    def awaited(self) -> list[Any]:
        """Return nothing: every slot is ready."""
        return []

    def start(self, block: int, number: int, apart_from: Any = None) -> Any:
        """Submit the task of `block` to the node with the most free slots."""
        node = self._choose_node(self._running.get(apart_from))
        # Soft: should the node be lost meanwhile, the task runs elsewhere.
        where = NodeAffinitySchedulingStrategy(node, soft=True) if node else "DEFAULT"
        task: Any = _task.options(scheduling_strategy=where, **self._options)
        ref = task.remote(self._id, self._sent, block, number, code_digests())
        self._running[ref] = node
        return ref

    def _choose_node(self, shunned: str | None) -> str | None:
        """Return the node with the most free slots, other than `shunned` if possible."""
        taken = Counter(self._running.values())
        free = {node: slots - taken[node] for node, slots in self._capacity.per_node().items()}
        now = time.monotonic()
        trusted = [node for node in free if self._suspected.get(node, 0.0) <= now]
        open_nodes = [node for node in trusted if free[node] > 0]
        return max(open_nodes, key=lambda node: (node != shunned, free[node]), default=None)

    def lost(self) -> list[Any]:
        """Return the tasks on nodes that Ray has declared dead."""
        living = self._capacity.per_node()
        return [ref for ref, node in self._running.items() if node and node not in living]

    def finished(self, ref: Any, error: RayError | None) -> None:
        """Free the slot; a node that lost the task is suspected."""
        node = self._running.pop(ref, None)
        if error is not None and node is not None:
            self._suspected[node] = time.monotonic() + SUSPECT_S

    def abandon(self, ref: Any) -> None:
        """Kill the task's process."""
        ray.cancel(ref, force=True)
        self._running.pop(ref, None)
