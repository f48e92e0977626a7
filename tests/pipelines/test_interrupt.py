"""SIGTERM, what `ray job stop` sends: the job says how to go on, and goes on from there."""

from __future__ import annotations

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
        "--limit", "64", "--block-rows", "8", "--json",
    ]  # fmt: skip
    job = subprocess.Popen([sys.executable, "-m", "pipelines.cli", *args], stderr=subprocess.PIPE)
    patience = time.monotonic() + 120
    while not list(store.glob("adversarials/*/commits/*.json")):
        assert job.poll() is None, "the job ended before its first block"
        assert time.monotonic() < patience
        time.sleep(0.2)
    job.terminate()
    _, log = job.communicate(timeout=60)
    assert job.returncode == 128 + signal.SIGTERM
    assert "run the same command again to go on" in log.decode().splitlines()[-1]
    kept = {path: path.read_bytes() for path in store.glob("adversarials/*/commits/*.json")}
    again = run(*args)
    assert again.status == 0
    step = again.json["steps"][-1]
    assert step["skipped"] == len(kept) > 0
    assert step["blocks"] + step["skipped"] == 8
    assert again.json["attempted"] == 64
    assert all(path.read_bytes() == content for path, content in kept.items())
