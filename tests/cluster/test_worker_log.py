from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from regroup_cluster.dispatch.attempt import REASON_CHARACTERS, AttemptError, attempt
from regroup_cluster.dispatch.blocks import BlockOutcome, BlockWorker, RetryPolicy
from regroup_cluster.dispatch.stopwatch import BlockClock
from regroup_cluster.dispatch.task_slots import dispatch_as_tasks
from regroup_cluster.dispatch.worker_log import DispatchLabel, run_id
from tests.cluster.test_dispatch import TWO, Recorder
from tests.cluster.workers import FaultyWork, dispatch_to_actors, fail

POLICY = RetryPolicy(3, 60, 60)


def logged(run: str) -> list[dict[str, Any]]:
    """The lines about `run` in the logs of all workers of this machine's Ray."""
    node: Any = ray._private.worker.global_worker.node
    folder = Path(node.get_logs_dir_path())
    lines = [
        json.loads(line)
        for path in folder.glob("worker-*.err")
        for line in path.read_text().splitlines()
        if f'"{run}"' in line
    ]
    return sorted(lines, key=lambda line: str(line["time"]))


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("way", ["actors", "tasks"])
def test_every_attempt_is_logged_by_its_worker(
    way: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    work, label = FaultyWork(tmp_path, {1: fail}), DispatchLabel(f"run-{way}", "extract digits")
    if way == "actors":
        dispatch_to_actors(work, range(3), TWO, POLICY, Recorder(), label)
    else:
        dispatch_as_tasks(work, range(3), TWO, POLICY, Recorder(), label)
    deadline = time.monotonic() + 60
    while len(lines := logged(label.run)) < 8 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(lines) == 8
    told = [(line["event"], line["attempt"]) for line in lines if line["block"] == 1]
    assert told == [("start", 1), ("failure", 1), ("start", 2), ("end", 2)]
    pids = {int(path.name.split(".")[2]) for path in tmp_path.iterdir()}
    assert {line["pid"] for line in lines} == pids
    assert {line["node"] for line in lines} == {ray.get_runtime_context().get_node_id()}
    assert {line["step"] for line in lines} == {"extract digits"}
    (failure,) = [line for line in lines if line["event"] == "failure"]
    assert failure["outcome"] == "UnpicklableError: bad and luck"
    assert failure["level"] == "error"
    assert "in fail" in failure["traceback"]
    (end, *_) = [line for line in lines if line["event"] == "end"]
    assert (end["outcome"], end["level"]) == ("committed", "info")
    assert 0 <= end["seconds"] < 600
    time.sleep(2)  # what Ray forwards to drivers comes within a second
    assert label.run not in "".join(capfd.readouterr())


def test_a_long_reason_is_cut() -> None:
    class Grumbling:
        def process(self, block: int, clock: BlockClock) -> BlockOutcome:
            raise ValueError("x" * 1_000_000)

    opened: Callable[[], BlockWorker] = Grumbling
    outcome = attempt(opened, 0, 1, DispatchLabel("run", "step"))
    assert isinstance(outcome, AttemptError)
    assert outcome.reason.endswith("x" * 100 + "\n")
    assert len(outcome.reason) <= REASON_CHARACTERS


def test_a_run_has_one_id() -> None:
    assert DispatchLabel() == DispatchLabel(run_id(), "")
    assert len(run_id()) == 8
