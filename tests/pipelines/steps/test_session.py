"""What a session asks of the dispatch, by its options and its store."""

from __future__ import annotations

from math import inf
from pathlib import Path

from regroup_pipelines.configs.options import ClusterOptions
from regroup_pipelines.steps.session import Session
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
