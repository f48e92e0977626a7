"""A cluster of several Ray nodes on this machine, whose workers sleep instead of computing."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from regroup_cluster.dispatch.blocks import BlockOutcome, BlockWork, RetryPolicy

if TYPE_CHECKING:
    from types import TracebackType

    from regroup_cluster.dispatch.actor_pool import WorkerPool
    from regroup_cluster.dispatch.stopwatch import BlockClock

NODE_CPUS = 8
# Ray replaces 127.0.0.1 by the machine's external address.
ADDRESS = "127.0.4.1"


@dataclass(frozen=True)
class Sleeper(BlockWork):
    """Both work and worker: a block only sleeps for `seconds`."""

    seconds: float

    def open(self) -> Sleeper:
        """Return the worker."""
        return self

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:  # noqa: ARG002
        """Sleep."""
        time.sleep(self.seconds)
        return BlockOutcome(committed=True, samples=1)


class SimulatedCluster:
    """A head that runs no blocks, and nodes for one-CPU workers, in a separate process.

    The process is needed because Ray reads its environment (the token) when it is imported.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(1, context, initializer=_begin, initargs=(_variables(folder),))
        self._process = self._stack.enter_context(pool)
        self._process.submit(_start, self.workers).result()
        self._stack.callback(lambda: self._process.submit(_stop).result())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def dispatch(self, blocks: int, seconds: float) -> float:
        """Time the dispatch of `blocks` blocks that sleep `seconds` each."""
        return self._process.submit(_dispatch, blocks, seconds).result()

    def bare(self, blocks: int, seconds: float) -> float:
        """Time `blocks` calls of one sleeping actor, one after the other: Ray alone."""
        return self._process.submit(_bare, blocks, seconds).result()


def _variables(folder: Path) -> dict[str, str]:
    """Return the environment of the cluster, with a separate token."""
    token = folder / "auth_token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    return {**kept, **own, "RAY_USAGE_STATS_ENABLED": "0"}


# ---- in the process of the cluster

_open = ExitStack()
_pools: list[WorkerPool] = []


def _begin(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def _start(workers: int) -> None:
    """Start nodes and driver; on return, every worker has processed one block."""
    from ray.cluster_utils import Cluster

    from regroup_cluster.dispatch.actor_pool import worker_pool
    from regroup_cluster.resources import WorkerResources
    from regroup_cluster.session import SessionConfig, ray_session

    head: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": ADDRESS}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    _open.callback(cluster.shutdown)
    for first in range(0, workers, NODE_CPUS):
        cluster.add_node(num_cpus=min(NODE_CPUS, workers - first))
    _open.enter_context(ray_session(SessionConfig(str(cluster.address))))
    _pools.append(_open.enter_context(worker_pool(WorkerResources(workers, 1, 0))))
    # Long enough that no block ends before the last worker has started.
    _dispatch(workers, 1 + workers / 2)


def _dispatch(blocks: int, seconds: float) -> float:
    from benchmarks.extract_job import Silent

    started = time.perf_counter()
    report = _pools[0].dispatch(Sleeper(seconds), range(blocks), RetryPolicy(), Silent())
    taken = time.perf_counter() - started
    if len(report.reports) != blocks:
        raise RuntimeError(f"only {len(report.reports)} of {blocks} blocks: {report.failures}")
    return taken


def _bare(blocks: int, seconds: float) -> float:
    import ray

    actor: Any = ray.remote(_BareSleeper).options(num_cpus=0).remote()
    ray.get(actor.sleep.remote(0))
    started = time.perf_counter()
    for _ in range(blocks):
        ray.get(actor.sleep.remote(seconds))
    return time.perf_counter() - started


class _BareSleeper:
    """An actor that knows nothing of blocks."""

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


def _stop() -> None:
    from ray._common.utils import reset_ray_address

    _open.close()
    reset_ray_address()
