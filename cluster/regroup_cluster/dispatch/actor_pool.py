"""The pool of actors: starts them, replaces the dead, hands blocks only to ready ones. DESIGN §6.

The actors are generic hosts, so the next job of a session reuses the processes of the last one.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray

from regroup_cluster.dispatch.actor_slots import ActorSlots, Host, HostedJob, WorkerHost
from regroup_cluster.dispatch.scheduler import drive
from regroup_cluster.dispatch.worker_log import Label
from regroup_cluster.resources import ResolvedResources, Room, WorkerResources, resolve_on_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from regroup_cluster.dispatch.blocks import DispatchReport, RetryPolicy, WorkerFactory
    from regroup_cluster.dispatch.progress import Progress


class WorkerPool:
    """Living worker processes, kept between dispatches; they hold their resources meanwhile.

    Attributes:
        resources: number of workers at the start, and what each has on this cluster.
    """

    def __init__(self, resources: ResolvedResources) -> None:
        self.resources = resources
        self._room = Room(resources)
        self._hosts: list[Host] = []
        # A death must reach the driver, which knows the block's attempts: no restarts by Ray.
        self._actor: Any = ray.remote(WorkerHost).options(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": resources.thread_environment()},
        )
        _open_pools.add(self)

    def dispatch(
        self,
        factory: WorkerFactory,
        blocks: Sequence[int],
        policy: RetryPolicy,
        progress: Progress,
        label: Label | None = None,
    ) -> DispatchReport:
        """Run `blocks` on workers made by `factory`, at most one worker a block.

        `label` names the dispatch in the workers' logs.

        Raises:
            ClusterUsageError: building the worker raised a usage error (`exit_status` 2).
            ClusterError: no worker can be started; committed blocks stay.
        """
        job = HostedJob(factory, label or Label(), policy.ready_deadline_s)
        slots = ActorSlots(self._hosts, self._actor.remote, job, self._room)
        return drive(slots, blocks, policy, progress)

    def release(self) -> None:
        """Kill the workers and free their resources; the next dispatch starts new ones."""
        while self._hosts:
            ray.kill(self._hosts.pop().actor)


_open_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def release_open_pools() -> None:
    """Release the workers of every pool of this process, which runs one dispatch at a time."""
    for pool in list(_open_pools):
        pool.release()


@contextmanager
def worker_pool(resources: WorkerResources) -> Iterator[WorkerPool]:
    """A pool on the Ray that this process is connected to; its workers are killed at the end.

    Raises:
        ClusterUsageError: `resources` do not fit the cluster.
    """
    pool = WorkerPool(resolve_on_cluster(resources))
    try:
        yield pool
    finally:
        pool.release()
        _open_pools.discard(pool)
