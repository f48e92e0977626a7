"""A node lost from a Ray that was put together by hand: separate `ray start`, killed by pid."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from regroup_cluster.dispatch.blocks import RetryPolicy
from regroup_cluster.resources import WorkerResources
from tests.cluster.nodes import (
    PATIENCE_S,
    StoredWork,
    connect,
    count_nodes,
    disconnect,
    dispatch,
    environment,
    family,
    process,
    send,
    wait_for,
)

pytestmark = pytest.mark.timeout(300)
RAY = Path(sys.executable).parent / "ray"
HEAD, FIRST, SECOND = "127.0.4.1", "127.0.4.2", "127.0.4.3"


@dataclass
class Machines:
    """`ray start` processes by address, and a driver that is connected to their head."""

    variables: dict[str, str]
    folder: Path
    port: int
    processes: dict[str, subprocess.Popen[bytes]]

    def start(self, address: str, *options: str) -> None:
        """Start a node as another machine would: with an address and a folder of its own."""
        # Ray's sockets lie below: their paths must be short.
        command: list[str | Path] = [RAY, "start", "--block", f"--node-ip-address={address}"]
        agent = f"--dashboard-agent-listen-port={free_port(address)}"
        with (self.folder / f"{address}.log").open("wb") as log:
            self.processes[address] = subprocess.Popen(
                [*command, agent, *options],
                env=self.variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def head(self) -> None:
        ports = [f"--port={self.port}", f"--ray-client-server-port={free_port(HEAD)}"]
        self.start(HEAD, "--head", "--num-cpus=0", "--include-dashboard=false", *ports)
        wait_for(lambda: listens(HEAD, self.port), "the head")

    def join(self, address: str, folder: str) -> None:
        self.start(address, f"--address={HEAD}:{self.port}", "--num-cpus=1", f"--temp-dir={folder}")

    def kill(self, address: str) -> None:
        """SIGKILL, by pid, to all that the node started."""
        send(family(self.processes[address].pid), signal.SIGKILL)
        self.processes.pop(address).wait(PATIENCE_S)


def free_port(address: str) -> int:
    with socket.socket() as found:
        found.bind((address, 0))
        return int(found.getsockname()[1])


def listens(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
        return True
    return False


@pytest.fixture
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("machines")
    found = Machines(environment(folder / "home"), folder, free_port(HEAD), {})
    try:
        found.head()
        yield found
    finally:
        for address in list(found.processes):
            found.kill(address)


@pytest.fixture
def driver(machines: Machines) -> Iterator[ProcessPoolExecutor]:
    with process(machines.variables) as driver:
        driver.submit(connect, f"{HEAD}:{machines.port}").result(PATIENCE_S)
        yield driver
        driver.submit(disconnect).result(PATIENCE_S)


def test_a_node_killed_by_pid(
    machines: Machines,
    driver: ProcessPoolExecutor,
    tmp_path: Path,
    short_folders: tuple[str, str],
) -> None:
    work, policy = StoredWork(tmp_path, 6, held=None), RetryPolicy(3, 300, 300)
    for address, folder in zip((FIRST, SECOND), short_folders, strict=True):
        machines.join(address, folder)
    joined = lambda: driver.submit(count_nodes).result(PATIENCE_S) == 3  # noqa: E731
    wait_for(joined, "both nodes")
    _ = work.element
    future = driver.submit(dispatch, "actors", work, WorkerResources(workers=2), policy)
    wait_for(lambda: len(work.nodes()) == 2, "a block on either node")
    victims = family(machines.processes[FIRST].pid)
    (lost,) = {(block, node) for block, node, pid, _ in work.attempts() if pid in victims}
    machines.kill(FIRST)
    work.go()
    outcome = future.result(2 * PATIENCE_S)
    work.check(outcome)
    assert [block for block, _ in outcome.retries] == [lost[0]]
    assert lost[1] not in {work.done_by(block) for block in range(6)}


@pytest.fixture
def short_folders() -> Iterator[tuple[str, str]]:
    """Two folders with short paths, since Ray's sockets lie below."""
    made = tempfile.mkdtemp(prefix="n"), tempfile.mkdtemp(prefix="n")
    yield made
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)
