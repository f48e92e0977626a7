"""SIGTERM, what `ray job stop` sends: the job says how to go on, and goes on from there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.pipelines.conftest import Run


def test_terminated_job_says_how_to_go_on_and_does(
    run: Run, local_ray: None, weights: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    args = [
        "attack", "--store", str(store), "--dataset", "digits:val", "--model", "digits-cnn",
        "--weights", str(weights), "--protocol", "minimal", "--epsilon", "16/255",
        "--steps", "10", "--limit", "32", "--block-rows", "4", "--batch", "4", "--workers", "1",
        "--json",
    ]  # fmt: skip
    job = subprocess.Popen(
        [sys.executable, "-m", "regroup_pipelines.cli", *args], stderr=subprocess.PIPE
    )
    patience = time.monotonic() + 120
    while not list(store.glob("adversarials/*/commits/*.json")):
        assert job.poll() is None, "the job ended before its first block"
        assert time.monotonic() < patience
        time.sleep(0.2)
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
    assert step["blocks"] + step["skipped"] == 8
    assert again.json["attempted"] == 32
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert len(list(store.glob("runs/*/run.json"))) == 2


def check_record(run: Run, store: Path) -> None:
    """What the interrupted run left of itself; it is no element, and no damage."""
    (folder,) = store.glob("runs/*")
    record, progress = (json.loads((folder / f"{n}.json").read_text()) for n in ("run", "progress"))
    assert (record["state"], record["exit_status"]) == ("interrupted", 128 + signal.SIGTERM)
    assert (record["command"], record["options"]["epsilon"]) == ("attack", "16/255")
    assert record["unfinished_step"]["step"].startswith("attack ")
    assert record["unfinished_step"]["blocks"] < 8
    assert record["steps"][-1]["phases"].keys() == {"read", "network", "write"}
    assert (progress["state"], progress["run"]) == ("interrupted", folder.name)
    assert run("ls", "--store", store, "--json").json["runs"] == 1
    verified = run("verify", "--store", store, "--json")
    assert verified.status == 0
    assert "runs" not in str(verified.json["findings"])
    assert len(list(store.glob("runs/*"))) == 1  # those two only read
