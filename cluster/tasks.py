"""Blocks as stateless Ray tasks."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

import ray

from cluster.driver import drive
from cluster.pool import release_open_pools
from cluster.resources import ResolvedResources, Room, WorkerResources, resolve_on_cluster
from cluster.worker_log import Label, attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ray.exceptions import RayError

    from cluster.dispatch import BlockReport, DispatchReport, RetryPolicy
    from cluster.progress import Progress


def run_tasks(
    function: Callable[[int], BlockReport],
    blocks: Sequence[int],
    resources: WorkerResources,
    policy: RetryPolicy,
    progress: Progress,
    label: Label | None,
) -> DispatchReport:
    """See `cluster.dispatch.dispatch_as_tasks`."""
    share = resolve_on_cluster(replace(resources, gpus=resources.gpus or 0))
    release_open_pools()
    if not getattr(function, "create_only", True):
        policy = replace(policy, straggler_factor=inf)
    slots = TaskSlots(function, share, label or Label(), policy.ready_deadline_s)
    return drive(slots, blocks, policy, progress)


class TaskSlots:
    """As many slots as the cluster can run tasks at once.

    Ray does not say when a task has found a process, so a block's deadline runs from its
    submission and allows `ready_deadline_s` for the wait, which on a shared cluster may be long.
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
        self._running: set[Any] = set()
        self._function = ray.put(function)
        # Ray's own retries would run outside the attempts and deadlines of the driver.
        self._task: Any = ray.remote(attempt).options(
            name="regroup-block",
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            max_retries=0,
            runtime_env={"env_vars": share.thread_environment()},
        )

    def tend(self, wanted: int) -> int:
        """Free slots; a task needs none to be kept up."""
        return min(self._room.workers(), wanted) - len(self._running)

    def awaited(self) -> list[Any]:
        """Nothing: every slot is ready."""
        return []

    def start(self, block: int, number: int, apart_from: Any = None) -> Any:  # noqa: ARG002
        """Submit the task of `block`; Ray chooses the node."""
        ref = self._task.remote(self._function, block, number, self._label)
        self._running.add(ref)
        return ref

    def finished(self, ref: Any, error: RayError | None) -> None:  # noqa: ARG002
        """The slot is free, whatever became of the task."""
        self._running.discard(ref)

    def abandon(self, ref: Any) -> None:
        """Kill the task's process."""
        ray.cancel(ref, force=True)
        self._running.discard(ref)
