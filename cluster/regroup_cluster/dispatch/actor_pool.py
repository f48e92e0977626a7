"""The pool of actors, whose processes outlive a dispatch: a session's next one reuses them."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray

from regroup_cluster.dispatch.actor_slots import ActorDispatch, ActorSlots
from regroup_cluster.dispatch.code_guard import GuardedActor
from regroup_cluster.dispatch.scheduler import drive
from regroup_cluster.dispatch.worker_log import DispatchLabel
from regroup_cluster.resources import Capacity, resolve_on_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from regroup_cluster.dispatch.actor_slots import ActorHandle
    from regroup_cluster.dispatch.blocks import BlockWork, DispatchReport, RetryPolicy
    from regroup_cluster.dispatch.progress import Progress
    from regroup_cluster.resources import ResolvedResources, WorkerResources


class WorkerPool:
    """Worker processes that are kept between dispatches, and with them their resources.

    Attributes:
        resources: number of workers at the start, and the share of each on this cluster.
    """

    def __init__(self, resources: ResolvedResources) -> None:
        self.resources = resources
        self._capacity = Capacity(resources)
        self._actors: list[ActorHandle] = []
        # A death must reach the driver, which knows the block's attempts: no restarts by Ray.
        self._actor_class: Any = ray.remote(GuardedActor).options(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": resources.thread_environment()},
        )
        _open_pools.add(self)

    def dispatch(
        self,
        work: BlockWork,
        blocks: Sequence[int],
        policy: RetryPolicy,
        progress: Progress,
        label: DispatchLabel | None = None,
    ) -> DispatchReport:
        """Run `work` on `blocks`, with at most one worker per block.

        Args:
            work: what the workers do.
            blocks: indices of the blocks.
            policy: attempts and deadlines.
            progress: receives every outcome.
            label: names the dispatch in the workers' logs.

        Raises:
            ClusterUsageError: opening the work raised a usage error (`exit_status` 2).
            ClusterError: no worker can be started; committed blocks stay.
        """
        begun = ActorDispatch(work, label or DispatchLabel(), policy.ready_deadline_s)
        slots = ActorSlots(self._actors, self._actor_class.remote, begun, self._capacity)
        return drive(slots, blocks, policy.for_work(work), progress)

    def release(self) -> None:
        """Kill the workers and free their resources; the next dispatch starts new ones."""
        while self._actors:
            ray.kill(self._actors.pop().actor)


_open_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def release_open_pools() -> None:
    """Release the workers of every pool of this process, which runs one dispatch at a time."""
    for pool in list(_open_pools):
        pool.release()


@contextmanager
def worker_pool(resources: WorkerResources) -> Iterator[WorkerPool]:
    """Yield a pool on the Ray that this process is connected to, and kill its workers at the end.

    Raises:
        ClusterUsageError: `resources` do not fit the cluster.
    """
    pool = WorkerPool(resolve_on_cluster(resources))
    try:
        yield pool
    finally:
        pool.release()
        _open_pools.discard(pool)
