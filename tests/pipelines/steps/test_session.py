"""What a session asks of the dispatch, by its options and its store."""

from __future__ import annotations

import json
import signal
from math import inf
from pathlib import Path
from typing import Any, NoReturn

import pytest

from regroup_cluster.dispatch.blocks import BlockFailure, DispatchReport
from regroup_cluster.errors import ClusterError, ClusterUsageError
from regroup_pipelines.configs.options import ClusterOptions
from regroup_pipelines.errors import IncompleteError, TerminatedError
from regroup_pipelines.steps.session import Session, log_failures, refuse_failures
from tests.store.elements import memory_store


def test_stragglers_are_not_tried_twice_at_once_where_nothing_locks(tmp_path: Path) -> None:
    """Else the later attempt could write over what the first one committed."""
    folder = Session(ClusterOptions(store=str(tmp_path / "s"), attempts=5, deadline=7))
    assert (folder._policy().attempts, folder._policy().deadline_s) == (5, 7)
    assert folder._policy().straggler_factor < inf
    bucket = Session(ClusterOptions(store="s3://bucket/s"))
    bucket.__dict__["store"] = memory_store()
    assert bucket._policy().straggler_factor == inf


def test_the_log_lines_of_workers_name_the_run(tmp_path: Path) -> None:
    session = Session(ClusterOptions(store=str(tmp_path / "s")))
    label = session._label("extract photos")
    assert (label.run, label.step) == (session._recorded().id, "extract photos")


def the_record(store: Path) -> dict[str, Any]:
    (path,) = store.glob("runs/*/run.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize(
    ("error", "state", "status"),
    [
        (ClusterError("Ray could not be started on this machine"), "failed", 1),
        (ClusterUsageError("Ray cannot be started: there is no place"), "failed", 2),
        (TerminatedError(signal.SIGHUP), "interrupted", 129),
        (SystemExit(signal.SIGTERM), "interrupted", 143),  # Ray's own, while it starts
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_a_run_whose_ray_does_not_start_records_its_end(
    error: BaseException, state: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr("regroup_pipelines.steps.session.ray_session", failing)
    session = Session(ClusterOptions(store=str(tmp_path)))
    with pytest.raises(type(error)), session:
        session._join()
    record = the_record(tmp_path)
    assert (record["state"], record["exit_status"]) == (state, status)


def test_a_run_that_loses_ray_says_and_records_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for received, status, said in ((0, 1, "Ray is lost"), (signal.SIGHUP, 129, "by SIGHUP: the")):
        store = tmp_path / str(status)
        session = Session(ClusterOptions(store=str(store)))
        monkeypatch.setattr(
            "regroup_pipelines.steps.session.received_signal", lambda number=received: number
        )
        assert session._tell_loss("Ray is lost") == status
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
        assert the_record(store)["exit_status"] == status


def test_one_reason_of_many_blocks_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "Traceback ...\n  File x\nOSError: block {0} at 0x7f{0}a of pid 10{0}: no route"
    failures = [BlockFailure(block, 3, reason.format(block)) for block in range(40)]
    with pytest.raises(IncompleteError) as error:
        refuse_failures("extract x", DispatchReport((), tuple(failures)))
    assert capsys.readouterr().err == ""
    assert str(error.value).count("no route") == 1
    assert "40 of 40 blocks failed" in str(error.value)
    assert "each with: OSError" in str(error.value)
    assert error.value.__notes__ == [failures[0].reason]
    log_failures("extract x", DispatchReport((), tuple(failures)))
    told = capsys.readouterr().err
    assert told.splitlines() == [
        "extract x: block 0-39 failed 3 times: OSError: block 0 at 0x7f0a of pid 100: no route"
    ]


def test_several_reasons_are_each_said(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = ["E: full", "E: gone", "E: full"]
    failures = tuple(BlockFailure(block, 1, reason) for block, reason in enumerate(reasons))
    with pytest.raises(IncompleteError, match="the first with: E: full"):
        refuse_failures("extract x", DispatchReport((), failures))
    assert capsys.readouterr().err.splitlines() == [
        "extract x: block 0, 2 failed 1 times: E: full",
        "extract x: block 1 failed 1 times: E: gone",
    ]
