"""What a run leaves beside its results: progress.json while it works, run.json at its end."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from regroup_cluster.dispatch.blocks import BlockOutcome, BlockReport, BlockWork
from regroup_cluster.dispatch.stopwatch import BlockClock
from regroup_cluster.errors import ClusterUsageError
from regroup_pipelines.configs.options import ClusterOptions
from regroup_pipelines.errors import TerminatedError
from regroup_pipelines.steps import run_record
from regroup_pipelines.steps.run_record import RunRecord, outcome, public
from regroup_pipelines.steps.session import Session, refuse_failures
from regroup_store.backends.object_store import ObjectBackend
from regroup_store.errors import StoreError
from regroup_store.format.store import Store, open_store

MIB = 2**20


def only(store: Path | str, name: str) -> dict[str, Any]:
    """The JSON of that name of the store's only run."""
    (path,) = Path(store).glob(f"runs/*/{name}")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@dataclass(frozen=True)
class Work(BlockWork):
    """Work with phases; `fault` happens on block 1."""

    fault: Callable[[], None] | None = None

    def open(self) -> Work:
        return self

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        if block == 1 and self.fault:
            self.fault()
        clock.phases.update(read=0.125, network=0.25)
        return BlockOutcome(committed=True, samples=10, failed=1)


def misfortune() -> None:
    raise ValueError("bad luck")


def run_work(store: Path, work: Work, cpus: float = 1) -> None:
    """A job of three blocks, whose second one may fail."""
    options = ClusterOptions(
        store=str(store), attempts=1, address="ray://u:hidden@head:1", cpus_per_worker=cpus
    )
    with Session(options) as session:
        session._joined = True  # the Ray of the session
        started = time.perf_counter()
        report = session.run_tasks("make x", work, range(3), 30)
        session.record("make x", "x-0123456789abcdef", report, 0, started)
        refuse_failures("make x", report)


def test_a_finished_run_says_who_did_what_with_what_for_how_long(
    local_ray: None, tmp_path: Path
) -> None:
    run_work(tmp_path / "s", Work())
    record = only(tmp_path / "s", "run.json")
    assert (record["state"], record["exit_status"], record["error"]) == ("done", 0, None)
    assert record["started"] <= record["ended"]
    assert record["started"].endswith("+00:00")
    assert record["user"]
    assert {"python", "ray", "torch", "zarr", "pyarrow", "numpy"} <= set(record["versions"])
    assert record["options"]["attempts"] == 1
    assert record["git_dirty"] in (True, False, None)
    assert (record["git_commit"] is None) == (record["git_dirty"] is None)
    (step,) = record["steps"]
    assert (step["blocks"], step["samples"], step["failed"]) == (3, 30, 3)
    assert step["phases"] == {"read": 0.375, "network": 0.75}
    assert record["elements"] == ["x-0123456789abcdef"]
    # A Python process with Ray in it: more than 30 MiB, less than this machine.
    for peak in (*record["peak_rss_bytes"].values(), step["peak_rss_bytes"]):
        assert 30 * MIB < peak < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert record["unfinished_step"] is None
    progress = only(tmp_path / "s", "progress.json")
    assert (progress["state"], progress["step"]["blocks"]) == ("done", 3)
    assert progress["run"] == record["run"]
    assert [step["step"] for step in progress["steps_done"]] == ["make x"]
    assert "hidden" not in json.dumps([record, progress])


def test_a_failed_run_leaves_its_record(local_ray: None, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="bad luck"):
        run_work(tmp_path / "s", Work(misfortune))
    record = only(tmp_path / "s", "run.json")
    assert (record["state"], record["exit_status"]) == ("failed", 1)
    assert "bad luck" in record["error"]
    assert record["unfinished_step"]["failed_blocks"] == 1
    assert only(tmp_path / "s", "progress.json")["state"] == "failed"


def test_progress_is_rewritten_while_a_step_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_record, "EVERY_S", 0.0)
    store = open_store(str(tmp_path), create=True)
    record = RunRecord(store, "extract", ClusterOptions(store=str(tmp_path)), list, print)
    step = record.step("extract x", 30, 2)
    step.start(3)
    step.update(BlockReport(0, True, 10, 0, 0, 0.1))
    deadline = time.monotonic() + 30
    while True:
        step.tick()
        files = list(tmp_path.glob("runs/*/progress.json"))
        found = json.loads(files[0].read_text()) if files else {"step": {"samples": 0}}
        if found["step"]["samples"]:
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert found["state"] == "running"
    assert found["step"]["total_blocks"] == 3
    assert found["step"]["skipped_blocks"] == 2
    record.finish(None)


def test_a_store_that_refuses_the_record_fails_no_job_but_is_named(tmp_path: Path) -> None:
    store, lines = open_store(str(tmp_path), create=True), list[str]()
    record = RunRecord(store, "extract", ClusterOptions(store=str(tmp_path)), list, lines.append)
    (tmp_path / "runs").write_text("a file where the folder should be")
    record.step("extract x", 30, 0).start(3)
    record.finish(None)
    (line,) = lines
    assert "the run continues without its record" in line
    assert str(tmp_path) in line


def test_a_step_that_is_refused_before_it_starts_keeps_its_reason(
    local_ray: None, tmp_path: Path
) -> None:
    with pytest.raises(ClusterUsageError, match="4000 CPUs"):
        run_work(tmp_path / "s", Work(), cpus=4000)
    record = only(tmp_path / "s", "run.json")
    assert (record["state"], record["exit_status"]) == ("failed", 2)


def test_on_an_object_store_it_is_written_less_often(tmp_path: Path) -> None:
    backend = ObjectBackend(MemoryStore(), "s3://bucket/prefix")
    options = ClusterOptions(store=backend.uri)
    record = RunRecord(Store(backend), "extract", options, list, print)
    assert record.every_s >= 10
    record.step("extract x", 30, 0).start(3)
    record.finish(None)
    assert json.loads(backend.read(f"runs/{record.id}/run.json"))["state"] == "done"
    assert json.loads(backend.read(f"runs/{record.id}/progress.json"))["state"] == "done"


def test_what_ended_a_run() -> None:
    assert outcome(None) == ("done", 0)
    assert outcome(KeyboardInterrupt()) == ("interrupted", 130)
    assert outcome(TerminatedError(signal.SIGTERM)) == ("interrupted", 143)
    assert outcome(TerminatedError(signal.SIGHUP)) == ("interrupted", 129)
    assert outcome(SystemExit(signal.SIGTERM)) == ("interrupted", 143)  # Ray's, while it starts
    assert outcome(SystemExit("of a model's module")) == ("failed", 1)
    assert outcome(StoreError("full")) == ("failed", 1)
    assert outcome(RuntimeError("a bug")) == ("failed", 1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:secret@host/bucket", "s3://***@host/bucket"),
        ("s3://bucket/x?X-Amz-Signature=abc", "s3://bucket/x?***"),
        ("no store at s3://k:s@h/b?t=1 today", "no store at s3://***@h/b?*** today"),
        ("parquet:/data/shard-??.parquet", "parquet:/data/shard-??.parquet"),
        ("parquet:s3://b/shard-??.parquet", "parquet:s3://b/shard-??.parquet"),
        ("someone@example.org", "someone@example.org"),
    ],
)
def test_secrets_in_uris_are_masked(text: str, shown: str) -> None:
    assert public({"a": [text], "b": 1}) == {"a": [shown], "b": 1}
