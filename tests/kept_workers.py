"""Worker processes that the tests' next job finds again, as the next step of one run does.

Each takes seconds to import torch, longer than most jobs of the tests compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from regroup_cluster.dispatch.actor_pool import WorkerPool
    from regroup_cluster.dispatch.actor_slots import ActorHandle
    from regroup_cluster.resources import ResolvedResources, WorkerResources

    Kept = dict[float, list[ActorHandle]]  # by their threads

# Ray ends idle processes of tasks beyond this number, by default that of the CPUs, and starts as
# many as there are CPUs for tasks without our environment, of which there are none.
ENVIRONMENT = {"RAY_num_workers_soft_limit": "8", "RAY_prestart_worker_first_driver": "0"}


@contextmanager
def kept_workers() -> Iterator[None]:
    """For a Ray that is started inside, and the jobs that this process runs on it meanwhile."""
    actors: Kept = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setattr(
            "regroup_cluster.dispatch.actor_pool.worker_pool",
            lambda resources: lasting_pool(resources, actors),
        )
        yield


@contextmanager
def lasting_pool(resources: WorkerResources, actors: Kept) -> Iterator[WorkerPool]:
    """Yield a pool on the actors that are there, and leave those that finished their work."""
    pool = _pool(resources, actors)
    try:
        yield pool
    finally:
        _drop_unfinished(pool._actors)


def _pool(resources: WorkerResources, actors: Kept) -> WorkerPool:
    """A pool on the actors that have as many threads, which tasks need not wait for."""
    from regroup_cluster.dispatch import actor_pool as module
    from regroup_cluster.resources import resolve_on_cluster

    pool = module.WorkerPool(resolve_on_cluster(resources))
    module._open_pools.discard(pool)
    pool._actor_class = _without_cpus(pool.resources)
    pool._actors = actors.setdefault(pool.resources.cpus, [])
    return pool


def _without_cpus(share: ResolvedResources) -> object:
    """Actors that hold no CPUs of Ray's, so that tasks find theirs beside them."""
    import ray

    from regroup_cluster.dispatch.code_guard import GuardedActor

    return ray.remote(GuardedActor).options(
        num_cpus=0,
        num_gpus=share.gpus,
        max_restarts=0,
        max_task_retries=0,
        runtime_env={"env_vars": share.thread_environment()},
    )


def _drop_unfinished(actors: list[ActorHandle]) -> None:
    """Kill those that an interrupted dispatch left at work."""
    import ray

    for handle in [handle for handle in actors if handle.state in ("starting", "busy")]:
        actors.remove(handle)
        ray.kill(handle.actor)
