"""Whether a run that recorded no end is still at work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from regroup_pipelines.configs.options import ClusterOptions
from regroup_pipelines.steps.driver_process import is_gone, this_process
from regroup_pipelines.steps.past_runs import past_runs
from regroup_pipelines.steps.run_record import HEARTBEAT_S, RunRecord
from regroup_store.format.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    """Another process, which has described itself and waits."""
    code = (
        "import json, sys; from regroup_pipelines.steps.driver_process import this_process;"
        "print(json.dumps(this_process()), flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def in_progress(store: Store, age: timedelta = timedelta(seconds=5), **members: Any) -> bool:
    """Whether a run is that wrote its record `age` ago."""
    updated = (datetime.now(UTC) - age).isoformat()
    record = {"state": "running", "updated": updated, **members}
    store.backend.replace("runs/20260101T000000Z-x-1/progress.json", json.dumps(record).encode())
    (run,) = past_runs(store)
    return run.in_progress(datetime.now(UTC))


def test_a_run_whose_process_was_killed_is_over_at_once(
    store: Store, other: subprocess.Popen[str]
) -> None:
    assert other.stdout is not None
    described = json.loads(other.stdout.readline())
    assert described["pid"] == other.pid
    assert in_progress(store, process=described)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert not in_progress(store, process=described), "dead, though its parent has not waited"
    other.wait()
    assert not in_progress(store, process=described)


def test_a_process_with_the_same_number_is_not_taken_for_it(store: Store) -> None:
    mine: dict[str, Any] = this_process() or {}
    assert in_progress(store, process=mine)
    assert not in_progress(store, process={**mine, "started": mine["started"] - 1})


@pytest.mark.parametrize(
    "process",
    [
        None,
        {},
        "a name",
        {"pid": "1", "started": 1},
        {"pid": 2**22 + 1, "started": 1, "table": "another kernel pid:[4026531836]"},
        {"pid": 2**22 + 1, "started": 1, "table": None},
    ],
)
def test_a_process_of_elsewhere_is_judged_by_its_heartbeat(store: Store, process: Any) -> None:
    assert not is_gone(process)
    beats = {"process": process, "heartbeat_s": HEARTBEAT_S}
    assert in_progress(store, timedelta(minutes=9), **beats)
    assert not in_progress(store, timedelta(minutes=11), **beats)
    assert in_progress(store, timedelta(minutes=59), process=process), "a record of before"


def test_a_run_beats_while_no_step_reports(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regroup_pipelines.steps.run_record.HEARTBEAT_S", 0.01)
    record = RunRecord(store, "extract", ClusterOptions(store=store.uri), list, print)
    written = Path(store.uri) / "runs" / record.id / "progress.json"
    deadline = datetime.now(UTC) + timedelta(seconds=60)
    while not written.exists():
        assert datetime.now(UTC) < deadline
    assert json.loads(written.read_text())["process"] == this_process()
    record.finish(None)
    ended = written.read_text()
    record.show()
    record.finish(RuntimeError("later"))
    assert written.read_text() == ended, "the first end is the end"
