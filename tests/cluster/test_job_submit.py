"""`ray job submit` against a real head that asks for a token: done, failed, stopped, resumed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from regroup_cluster.code_version import code_digests
from tests.kept_workers import ENVIRONMENT

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_S, JOB_S = 120, 200
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOOPBACK = "127.0.0.2"  # Ray replaces 127.0.0.1 by the machine's external address


@dataclass(frozen=True)
class Done:
    status: int
    out: str


@dataclass(frozen=True)
class Head:
    """A running head: the environment that reaches it, and its process."""

    environment: dict[str, str]
    url: str

    def ray(self, *arguments: str, **extra: str) -> Done:
        """Run the `ray` command."""
        done = subprocess.run(
            [BIN / "ray", *arguments],
            env={**self.environment, **extra},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=JOB_S,
            check=False,
        )
        return Done(done.returncode, re.sub(r"\x1b\[\d*m", "", done.stdout))

    def submit(self, name: str, *command: object, wait: bool = True) -> Done:
        """Submit one of our programs, with this repository as the working directory."""
        told = json.dumps({"env_vars": {"REGROUP_COMMIT": f"{COMMIT}-dirty"}})
        options = ["--submission-id", name, "--working-dir", ".", "--runtime-env-json", told]
        options += ["--no-wait"] * (not wait)
        return self.ray("job", "submit", *options, "--", "python", *map(str, command))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head on loopback with ports, home, token and session folder of its own."""
    sessions = tempfile.mkdtemp(prefix="j", dir="/tmp")  # the path of a socket is short
    home = tmp_path_factory.mktemp("home")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    gcs, dashboard, agent, client = free_ports(4)
    url = f"http://127.0.0.1:{dashboard}"
    environment |= ENVIRONMENT | {
        "HOME": str(home),
        "PATH": f"{BIN}:{environment['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_API_SERVER_ADDRESS": url,
        "RAY_TMPDIR": sessions,
    }
    head = Head(environment, url)
    assert head.ray("get-auth-token", "--generate").status == 0
    command: list[str | Path] = [
        *(BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"),
        *(f"--node-ip-address={LOOPBACK}", f"--port={gcs}"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"),
    ]
    with (home / "head.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        listening = lambda: process.poll() is None and answers(agent)  # noqa: E731
        wait_for(listening, START_S, "the head")
        yield head
    finally:
        end(process)
        shutil.rmtree(sessions, ignore_errors=True)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1):
        return True
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    """End the head and what it started, and nothing else: they share its process group."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the store that the tests share."""
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def options(study: Path, weights: Path) -> tuple[object, ...]:
    """What every job on the shared store is told."""
    model = ("--model", "digits-cnn", "--weights", weights, "--workers", 1)
    return ("--store", study / "store", "--dataset", "digits:val", *model)


@pytest.fixture(scope="module")
def bank(head: Head, options: tuple[object, ...]) -> Done:
    """The job that builds a bank."""
    return head.submit("bank", "pipelines/build_bank.py", *options, "--per-class", 10)


def test_a_bank_is_built_by_a_job(bank: Done, study: Path) -> None:
    assert bank.status == 0, bank.out
    assert "Job 'bank' succeeded" in bank.out
    # The first round's (10 + sqrt(10 / 4)) / 0.75 of each class.
    assert "bank of 10 per class: trying 160 of 599 images, of 10 classes" in bank.out
    assert "extract digits-val-candidates-digits-cnn: 160 samples, 160 forward passes" in bank.out
    assert len(list((study / "store" / "banks").iterdir())) == 1


def test_the_copy_of_a_job_records_the_commit_that_it_is_told_and_its_code(
    bank: Done, study: Path
) -> None:
    """Ray leaves .git out of what it packs."""
    manifests = [*(study / "store").glob("*/*/manifest.json")]
    assert {path.parts[-3] for path in manifests} >= {"indexes", "features", "banks"}
    for path in manifests:
        recorded = json.loads(path.read_text())["recorded"]
        assert (recorded["git_commit"], recorded["code"]) == (COMMIT, code_digests()), path
    (run,) = (json.loads(path.read_text()) for path in (study / "store").glob("runs/*/run.json"))
    assert (run["git_commit"], run["git_dirty"], run["code"]) == (COMMIT, True, code_digests())


def test_a_wrong_option_fails_the_job(head: Head, tmp_path: Path) -> None:
    done = head.submit(
        "wrong", "pipelines/index_dataset.py", "--store", tmp_path / "s", "--datset", "digits"
    )
    assert done.status == 1
    assert "Job 'wrong' failed" in done.out
    assert "failed with exit code 2" in done.out
    assert "--datset" in done.out
    assert "Job 'wrong' failed" in head.ray("job", "status", "wrong").out


def test_no_job_without_the_token(head: Head, tmp_path: Path) -> None:
    command = ("job", "submit", "--submission-id", "thief", "--", "true")
    for intruder in ({"HOME": str(tmp_path)}, {"RAY_AUTH_TOKEN": "0" * 64}):
        refused = head.ray(*command, **intruder)
        assert refused.status != 0
        assert "AuthenticationError" in refused.out
    assert "thief" not in head.ray("job", "list").out


def test_a_stopped_job_is_resumed(
    head: Head, bank: Done, options: tuple[object, ...], study: Path
) -> None:
    share = ("--block-rows", 4, "--batch", 4)
    attack = ("pipelines/attack.py", *options, *share, "--limit", 32, "--steps", 200)

    def commits() -> dict[str, bytes]:
        found = study.glob("store/adversarials/*/commits/*")
        return {path.name: path.read_bytes() for path in found}

    assert head.submit("first", *attack, wait=False).status == 0
    wait_for(lambda: len(commits()) >= 1, JOB_S, "the first block")
    stopped = head.ray("job", "stop", "first")
    assert "Job 'first' was stopped" in stopped.out
    before = commits()
    assert 1 <= len(before) < 8
    assert "Job 'first' was stopped" in head.ray("job", "status", "first").out
    time.sleep(1)
    assert commits() == before, "blocks were committed after the job had stopped"

    done = head.submit("second", *attack)
    assert done.status == 0, done.out
    assert "already in the store" in done.out
    told = re.search(r"attack \S+: (\d+) samples, .* (\d+) blocks already in the store", done.out)
    assert told, done.out
    assert (int(told[1]), int(told[2])) == (32 - 4 * len(before), len(before))
    after = commits()
    assert len(after) == 8
    assert {name: after[name] for name in before} == before
