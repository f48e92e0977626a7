"""The rehearsal runs to the end at a small size, and tells a floor that is missed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scale import table
from benchmarks.v50k import LIMIT_BYTES, Step
from tests.kept_workers import ENVIRONMENT

ROOT = Path(__file__).parents[2]
STEPS = [
    "write bank features",
    "write val features",
    "verify, 1 process",
    "read",
    "build bank",
    "score, every k",
    "re-score, k = 5",
]


def test_a_small_rehearsal_runs_to_the_end(tmp_path: Path) -> None:
    report, work = tmp_path / "v50k.json", tmp_path / "work"
    work.mkdir()
    what = ["--model", "digits-cnn", "--policy", "preactivation", "--samples", "600"]
    how = ["--block-rows", "256", "--workers", "2", "--folder", str(work), "--json", str(report)]
    # A process of its own, as for a user; Ray keeps the token of the first session of a process.
    command = [sys.executable, "-m", "benchmarks.v50k", *what, *how]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    # The floors of so few samples are those of starting processes.
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    (run,) = json.loads(report.read_text())
    assert [step["name"] for step in run["steps"]] == STEPS
    assert run["samples"] == 600
    assert run["accuracy"] > 0.9  # the samples tell their classes, so the bank is a real one
    channels = sum(size for _, size in run["taps"])
    write, *_, bank, _, rescore = run["steps"]
    assert write["data_bytes"] == 600 * 4 * (2 * channels + 10)
    assert write["data_bytes"] / 2 < write["stored_bytes"] < write["data_bytes"]
    assert rescore["data_bytes"] == 600 * 8 * sum(size for _, size in run["taps"][-5:])
    for step in run["steps"]:
        assert 0 < step["counted"] <= step["seconds"]
        assert step["floor"] > 0
        assert step["share"] == pytest.approx(step["floor"] / step["counted"])
        assert 50e6 < step["driver_bytes"] < LIMIT_BYTES
    assert bank["workers_bytes"] > 50e6
    assert not list(work.iterdir())  # the store went with the run
    assert "gradient steps" in table([run])


STEP = Step("write", 12.0, 10.0, 5.0, 0.5, 1000, 900, 1.0, 10**9, 10**9)


def test_a_missed_floor_is_seen() -> None:
    assert (STEP.share, STEP.met) == (0.5, True)
    assert not replace(STEP, counted=10.1).met
    assert replace(STEP, counted=100.0, required=None).met


def test_too_much_memory_is_seen() -> None:
    assert replace(STEP, workers_bytes=int(LIMIT_BYTES) - 10**9).met
    assert not replace(STEP, workers_bytes=int(LIMIT_BYTES) - 10**9 + 1).met
