"""Runs that are ended from outside: they say how to go on, record their end, and go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster.listening import family
from tests.pipelines.conftest import Run


def test_terminated_job_says_how_to_go_on_and_does(
    run: Run, local_ray: None, weights: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    args = [
        "attack", "--store", str(store), "--dataset", "digits:val", "--model", "digits-cnn",
        "--weights", str(weights), "--protocol", "minimal", "--epsilon", "16/255",
        "--steps", "8", "--bisections", "6", "--limit", "16", "--block-rows", "4", "--batch", "4",
        "--workers", "1", "--json",
    ]  # fmt: skip
    job = subprocess.Popen(
        [sys.executable, "-m", "regroup_pipelines.cli", *args], stderr=subprocess.PIPE
    )
    patience = time.monotonic() + 120
    while not list(store.glob("adversarials/*/commits/*.json")):
        assert job.poll() is None, "the job ended before its first block"
        assert time.monotonic() < patience
        time.sleep(0.05)
    job.terminate()
    _, log = job.communicate(timeout=60)
    assert job.returncode == 128 + signal.SIGTERM
    assert "run the same command again to continue" in log.decode().splitlines()[-1]
    check_record(run, store)
    kept = {path: path.read_bytes() for path in store.glob("adversarials/*/commits/*.json")}
    again = run(*args)
    assert again.status == 0
    step = again.json["steps"][-1]
    assert step["skipped"] == len(kept) > 0
    assert step["blocks"] + step["skipped"] == 4
    assert again.json["attempted"] == 16
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert len(list(store.glob("runs/*/run.json"))) == 2


def check_record(run: Run, store: Path) -> None:
    """What the interrupted run left of itself; it is no element, and no damage."""
    (folder,) = store.glob("runs/*")
    record, progress = (json.loads((folder / f"{n}.json").read_text()) for n in ("run", "progress"))
    assert (record["state"], record["exit_status"]) == ("interrupted", 128 + signal.SIGTERM)
    assert record["error"] == "SIGTERM"
    assert (record["command"], record["options"]["epsilon"]) == ("attack", "16/255")
    assert record["unfinished_step"]["step"].startswith("attack ")
    assert record["unfinished_step"]["blocks"] < 4
    assert record["steps"][-1]["phases"].keys() == {"read", "network", "write"}
    assert (progress["state"], progress["run"]) == ("interrupted", folder.name)
    assert run("ls", "--store", store, "--json").json["runs"] == 1
    verified = run("verify", "--store", store, "--json")
    assert verified.status == 0
    assert "runs" not in str(verified.json["findings"])
    assert len(list(store.glob("runs/*"))) == 1  # those two only read


HANGING = """
import sys, time
from pathlib import Path
from regroup_cluster.dispatch.blocks import BlockWork
from regroup_pipelines.configs.steps import IndexConfig
from regroup_pipelines.steps.session import Session

class Work(BlockWork):
    def open(self):
        return self

    def process(self, block, clock):
        Path(sys.argv[1], "begun").touch()
        time.sleep(600)

with Session(IndexConfig(dataset="digits", store="STORE", workers=1)) as session:
    assert session.store
    session.run_tasks("make x", Work(), [0], 1)
"""


def test_a_run_whose_ray_is_killed_says_so_and_records_it(tmp_path: Path) -> None:
    """Ray itself is silent for a minute, and ends the process then without unwinding it."""
    store = tmp_path / "store"
    code = HANGING.replace("sys.argv[1]", repr(str(tmp_path))).replace("STORE", str(store))
    job = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    patience = time.monotonic() + 120
    while not (tmp_path / "begun").exists():
        assert job.poll() is None, "the job ended before its first block"
        assert time.monotonic() < patience
        time.sleep(0.1)
    heads = [pid for pid in family([job.pid]) if name_of(pid) == "gcs_server"]
    killed = time.monotonic()
    for pid in heads:
        os.kill(pid, signal.SIGKILL)
    _, log = job.communicate(timeout=60)
    assert time.monotonic() - killed < 45, "Ray's own patience is a minute"
    assert (len(heads), job.returncode) == (1, 1)
    assert "Traceback" not in log
    assert "lost: its process gcs_server was killed by SIGKILL" in log.splitlines()[-1]
    (path,) = store.glob("runs/*/run.json")
    record = json.loads(path.read_text())
    assert (record["state"], record["exit_status"]) == ("failed", 1)
    assert record["error"] in log
    assert record["unfinished_step"]["step"] == "make x"


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()
