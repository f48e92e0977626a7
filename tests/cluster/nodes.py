"""Several nodes for the tests: Ray's test cluster in one process, a driver in another.

Both are apart from the process of the tests, which may be connected to the folder's own Ray.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from regroup_cluster.dispatch.blocks import (
    BlockOutcome,
    BlockReport,
    BlockWork,
    DispatchReport,
    RetryPolicy,
)
from regroup_cluster.dispatch.stopwatch import BlockClock
from regroup_cluster.resources import WorkerResources
from tests.cluster.jumping_clock import jump_when

PATIENCE_S = 60
# A file in the folder of the work: the driver's clock jumps ahead once it is there.
LATER = "later"
# A lost node is known within about three seconds, not Ray's thirty.
QUICK_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "5",
}


def wait_for(condition: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
        time.sleep(0.05)


def environment(home: Path) -> dict[str, str]:
    """What nodes and driver run in: a home of their own, whose token they share."""
    token = home / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    quiet = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    quiet["RAY_prestart_worker_first_driver"] = "0"  # tests/kept_workers.py
    return {**kept, **quiet, **QUICK_HEALTH_CHECKS, "HOME": str(home)}


@contextlib.contextmanager
def process(variables: dict[str, str]) -> Iterator[ProcessPoolExecutor]:
    """One process that runs functions, in the environment `variables` from its start."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, context, initializer=_begin, initargs=(variables,))
    try:
        yield pool
    finally:
        workers = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            # A test that failed leaves a dispatch that may never end.
            worker.join(10)
            worker.kill()


def _begin(variables: dict[str, str]) -> None:
    assert "ray" not in sys.modules, "Ray reads its environment when it is imported"
    os.environ.clear()
    os.environ.update(variables)


# In the process of the nodes.

_cluster: Any = None
_nodes: dict[str, Any] = {}


def start_head(address: str) -> str:
    """Start a head without work; return where it listens."""
    from ray.cluster_utils import Cluster

    global _cluster
    options = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": address}
    _cluster = Cluster(initialize_head=True, head_node_args=options)
    return str(_cluster.address)


def add_node(**options: Any) -> str:
    node = _cluster.add_node(**options)
    _nodes[node.node_id] = node
    return str(node.node_id)


def lose_node(name: str) -> None:
    """Kill every process of a node, without grace."""
    _cluster.remove_node(_nodes.pop(name), allow_graceful=False)


def raylet_pid(name: str) -> int:
    (raylet,) = _nodes[name].all_processes["raylet"]
    return int(raylet.process.pid)


def stop_cluster() -> None:
    from ray._common.utils import reset_ray_address

    _cluster.shutdown()
    reset_ray_address()


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found


def send(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


# In the process of the driver.

_session = contextlib.ExitStack()


def connect(address: str) -> None:
    from regroup_cluster.session import SessionConfig, ray_session

    _session.enter_context(ray_session(SessionConfig(address)))


def disconnect() -> None:
    _session.close()


def count_nodes() -> int:
    import ray

    return sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]


@dataclass
class Outcome:
    """What a dispatch came to: its report, the failed attempts, its seconds."""

    report: DispatchReport
    retries: list[tuple[int, str]]
    seconds: float


@dataclass
class Seen:
    """A Progress that keeps the failed attempts."""

    retries: list[tuple[int, str]] = field(default_factory=list)

    def start(self, blocks: int) -> None: ...

    def update(self, report: BlockReport) -> None: ...

    def tick(self) -> None: ...

    def retry(self, block: int, reason: str) -> None:
        self.retries.append((block, reason))

    def failure(self, block: int, reason: str) -> None: ...

    def close(self) -> None: ...


Way = Literal["actors", "tasks"]


def dispatch(
    way: Way, work: StoredWork, resources: WorkerResources, policy: RetryPolicy
) -> Outcome:
    from regroup_cluster.dispatch.task_slots import dispatch_as_tasks
    from tests.cluster.workers import dispatch_to_actors

    seen, started, blocks = Seen(), time.monotonic(), range(work.blocks)
    with pytest.MonkeyPatch.context() as patch:
        jump_when(patch, lambda: int((work.folder / LATER).exists()))
        if way == "actors":
            report = dispatch_to_actors(work, blocks, resources, policy, seen)
        else:
            report = dispatch_as_tasks(work, blocks, resources, policy, seen)
    return Outcome(report, seen.retries, time.monotonic() - started)


# In the workers.


@dataclass(frozen=True)
class StoredWork(BlockWork):
    """Fills a features element; work and worker at once.

    Attributes:
        folder: of the store, and of a file for each attempt: block, node, pid and number.
        blocks: how many blocks of two rows.
        held: blocks whose first attempt waits until the file `go` is there; None: all blocks.
        slow: a node on which a block lasts until the others have committed three more, or all.
    """

    folder: Path
    blocks: int
    held: tuple[int, ...] | None = ()
    slow: str = ""

    def open(self) -> StoredWork:
        return self

    @property
    def element(self) -> Any:
        """The element, made when it is not there."""
        import pyarrow as pa

        from regroup_store.format.arrays import ArraySpec
        from regroup_store.format.element import BlockElement
        from regroup_store.format.element_spec import ElementSpec
        from regroup_store.format.parquet_parts import STATUS_FIELDS
        from regroup_store.format.store import open_store

        arrays = (ArraySpec("values.zarr", (3,), "float32"),)
        inputs = {"source": {"index": "0" * 64}}
        rows, columns = 2 * self.blocks, pa.schema([*STATUS_FIELDS])
        spec = ElementSpec("features", "tiny", inputs, rows, 2, arrays, columns)
        return BlockElement.create(open_store(str(self.folder / "store"), create=True), spec, {})

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        import ray

        node = ray.get_runtime_context().get_node_id()
        number = len(self.attempts(block))
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        (self.folder / f"try.{block}.{node}.{os.getpid()}.{number}.{gpus}").touch()
        if number == 0 and (self.held is None or block in self.held):
            wait_for((self.folder / "go").exists, "the word to go on")
        if node == self.slow:
            self._let_others_pass()
        return self._write(block, node)

    def _let_others_pass(self) -> None:
        """Wait by their progress, not by a clock: how fast this machine is does not matter."""
        enough = len(self._committed()) + 3
        wait_for(lambda: self._passed(enough), "blocks of the other nodes")

    def _passed(self, enough: int) -> bool:
        committed = self._committed()
        begun = {block for block, node, _, _ in self.attempts() if node == self.slow}
        return len(committed) >= enough or len(committed | begun) == self.blocks

    def _committed(self) -> set[int]:
        return {int(path.name.split(".")[1]) for path in self.folder.glob("commit.*")}

    def _write(self, block: int, node: str) -> BlockOutcome:
        import pyarrow as pa

        names = [f"{block}-{row}" for row in range(2)]
        table = {"sample_id": names, "status": ["ok"] * 2, "error": [None] * 2, "label": [0] * 2}
        element, values = self.element, self.values(block)
        rows = pa.table(table, schema=pa.schema(element_columns()))
        committed = element.write_block(block, {"values.zarr": values}, rows, {"node": node})
        if committed:
            (self.folder / f"commit.{block}.{node}.{os.getpid()}").touch()
        return BlockOutcome(committed, samples=2)

    def values(self, block: int) -> Any:
        import numpy as np

        return np.arange(6, dtype=np.float32).reshape(2, 3) + 100 * block

    def attempts(self, block: int | None = None) -> list[tuple[int, str, int, str]]:
        """(block, node, pid, GPUs) of the attempts so far."""
        wanted = "*" if block is None else str(block)
        names = [path.name.split(".") for path in self.folder.glob(f"try.{wanted}.*")]
        return [(int(name[1]), name[2], int(name[3]), name[5]) for name in names]

    def nodes(self) -> set[str]:
        """The nodes that have begun a block."""
        return {node for _, node, _, _ in self.attempts()}

    def go(self) -> None:
        (self.folder / "go").touch()

    def check(self, outcome: Outcome) -> None:
        """Every block was reported once, committed once, and holds its values."""
        import numpy as np

        report, element = outcome.report, self.element
        assert report.failures == ()
        assert [r.block for r in report.reports] == list(range(self.blocks))
        assert sorted(self._committed()) == list(range(self.blocks))
        assert len([*self.folder.glob("commit.*")]) == self.blocks
        assert element.missing() == []
        for block in range(self.blocks):
            assert np.array_equal(element.read_array("values.zarr", block), self.values(block))

    def done_by(self, block: int) -> str:
        """The node that committed `block`."""
        return str(self.element.commit(block).report["node"])


def element_columns() -> Any:
    from regroup_store.format.parquet_parts import STATUS_FIELDS

    return [*STATUS_FIELDS]


# In the tests.


@dataclass
class Lab:
    """A running cluster and a driver that is connected to it."""

    nodes: ProcessPoolExecutor
    driver: ProcessPoolExecutor
    plain: set[str] = field(default_factory=set)

    def add(self, **options: Any) -> str:
        """Add a node and return its id."""
        name = self.nodes.submit(add_node, **options).result(PATIENCE_S)
        if not options:
            self.plain.add(name)
        return name

    def have(self, count: int) -> list[str]:
        """Exactly `count` living nodes of one CPU, and the head without work, as Ray knows."""
        while len(self.plain) < count:
            self.add()
        while len(self.plain) > count:
            self.lose(min(self.plain))
        wait_for(lambda: self._known() == count + 1, "Ray's knowledge of its nodes")
        return sorted(self.plain)

    def _known(self) -> int:
        return self.driver.submit(count_nodes).result(2 * PATIENCE_S)

    def lose(self, name: str) -> None:
        """Kill a node as a power cut does: its workers do not outlive its raylet."""
        self.plain.discard(name)
        processes = self.family(name)
        send(processes, signal.SIGKILL)
        self.nodes.submit(lose_node, name).result(PATIENCE_S)

    def family(self, name: str) -> list[int]:
        """The processes of a node: its raylet and all that it started."""
        return family(self.nodes.submit(raylet_pid, name).result(PATIENCE_S))

    def dispatch(
        self, way: Way, work: StoredWork, resources: WorkerResources, policy: RetryPolicy
    ) -> Future[Outcome]:
        """Begin a dispatch in the driver."""
        _ = work.element
        return self.driver.submit(dispatch, way, work, resources, policy)


@contextlib.contextmanager
def lab(home: Path, address: str) -> Iterator[Lab]:
    variables = environment(home)
    with process(variables) as nodes, process(variables) as driver:
        where = nodes.submit(start_head, address).result(PATIENCE_S)
        try:
            driver.submit(connect, where).result(PATIENCE_S)
            yield Lab(nodes, driver)
            driver.submit(disconnect).result(PATIENCE_S)
        finally:
            nodes.submit(stop_cluster).result(PATIENCE_S)
