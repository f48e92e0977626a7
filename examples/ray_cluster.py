"""A Ray cluster of two nodes, which a command joins by `--address`.

On several machines the nodes are started by hand, by `ray up` or by Kubernetes (docs/cluster.md).
Here they are two `ray start` processes on loopback addresses, with a token of their own. This
program ends the processes that it started, and no other Ray.

Run: python examples/ray_cluster.py runs/cluster
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent
HEAD, NODE = "127.0.7.1", "127.0.7.2"
COMMAND = "extract --model digits-cnn --weights random --dataset digits:val --block-rows 100"


def free_port(address: str) -> int:
    """A port of `address` on which nothing listens."""
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def node(address: str, *options: str) -> Iterator[None]:
    """One node with one CPU until the end of the context; SIGTERM ends all that it started."""
    agent = f"--dashboard-agent-listen-port={free_port(address)}"
    place = (f"--node-ip-address={address}", agent, "--num-cpus=1", *options)
    process = subprocess.Popen([BIN / "ray", "start", "--block", *place], stdout=sys.stderr)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def wait_for(address: str, port: int) -> None:
    """Return once something listens there, which takes a head some seconds."""
    for _ in range(600):
        with suppress(OSError), socket.create_connection((address, port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens at {address}:{port}")


def main(folder: str) -> None:
    """Start both nodes, run the command twice on them, and end them."""
    token = Path(folder, "token")
    token.parent.mkdir(parents=True, exist_ok=True)
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token.resolve()))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    port, client = free_port(HEAD), f"--ray-client-server-port={free_port(HEAD)}"
    options = ("--address", f"{HEAD}:{port}", "--store", str(Path(folder, "store")))
    with node(HEAD, "--head", f"--port={port}", client, "--include-dashboard=false"):
        wait_for(HEAD, port)
        with node(NODE, f"--address={HEAD}:{port}"):
            for _ in range(2):  # the second run finds everything in the store
                subprocess.run([BIN / "regroup", *COMMAND.split(), *options], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
