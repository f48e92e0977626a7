"""Where a report may be written, what is refused, and what a killed report leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from regroup_pipelines.commands import report
from regroup_pipelines.configs.stored import ReportConfig
from regroup_pipelines.errors import UsageError
from regroup_pipelines.report_pages import folder
from regroup_pipelines.report_pages.folder import _MARKER, replaced_folder
from regroup_store.format.store import open_store
from tests.pipelines.conftest import Run
from tests.pipelines.reported import Reported

ROOT = Path(__file__).parents[3]


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def write(output: Path, text: str) -> None:
    with replaced_folder(output) as draft:
        (draft / "index.html").write_text(text)


@pytest.mark.parametrize("there", ["nothing", "empty"])
def test_a_new_or_empty_folder_is_taken(tmp_path: Path, there: str) -> None:
    output = tmp_path / "a" / "report"
    if there == "empty":
        output.mkdir(parents=True)
    write(output, "new")
    assert (output / "index.html").read_text() == "new"
    assert [path.name for path in output.parent.iterdir()] == ["report"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_report_is_replaced_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(folder, "_exchange", lambda *_: False)
    write(tmp_path / "report", "old")
    (tmp_path / "report" / "index.html").write_text("edited")
    write(tmp_path / "report", "new")
    assert tree(tmp_path / "report").keys() == {"index.html", _MARKER}
    assert (tmp_path / "report" / "index.html").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize("foreign", ["notes.txt", "sub/notes.txt", "empty/"])
def test_a_report_with_something_foreign_in_it_is_refused(tmp_path: Path, foreign: str) -> None:
    output = tmp_path / "report"
    write(output, "old")
    path = output / foreign
    path.parent.mkdir(exist_ok=True)
    if foreign.endswith("/"):
        path.mkdir()
    else:
        path.touch()
    before = tree(output)
    with pytest.raises(UsageError, match=f"holds {foreign.rstrip('/')}, which no report wrote"):
        write(output, "new")
    assert tree(output) == before
    assert path.exists()


def test_another_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    with pytest.raises(UsageError, match=r"one\.jpg, which no report wrote"):
        write(tmp_path / "photos", "new")
    (tmp_path / "photos" / _MARKER).write_text('{"format": "something", "files": ["one.jpg"]}')
    with pytest.raises(UsageError, match="which no report wrote"):
        write(tmp_path / "photos", "new")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is not a folder"):
        write(tmp_path / "file", "new")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    with pytest.raises(UsageError, match="is not a folder"):
        write(tmp_path / "link", "new")


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "report", "old")
    before = tree(tmp_path / "report")

    def fail() -> None:
        with replaced_folder(tmp_path / "report") as draft:
            (draft / "index.html").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert tree(tmp_path / "report") == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


KILLED = """
import os, signal, sys
from regroup_pipelines.cli import main
from regroup_pipelines.report_pages.pages import StudyPages
StudyPages._cost = lambda self: os.kill(os.getpid(), signal.SIGKILL)
main(["report", "--store", sys.argv[1], "-o", sys.argv[2]])
"""


def test_a_killed_report_leaves_the_old_one_whole(reported: Reported, tmp_path: Path) -> None:
    output = tmp_path / "report"
    report.main(ReportConfig(store=reported.store.uri, output=str(output), json=True))
    before = tree(output)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, reported.store.uri, output], cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert tree(output) == before
    report.main(ReportConfig(store=reported.store.uri, output=str(output), json=True))
    assert tree(output).keys() == before.keys()


def test_what_cannot_be_meant_is_one_sentence(reported: Reported, run: Run, tmp_path: Path) -> None:
    store = reported.store.uri
    empty = open_store(str(tmp_path / "empty"), create=True).uri
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    for args, said in (
        (["--store", tmp_path / "none"], "there is no store at"),
        (["--store", empty], "holds no study's results: run one first, such as `regroup run"),
        (["--store", store, "--study", "colour"], "no study 'colour': did you mean colours?"),
        (["--store", store, "--study", "../x"], "no study '../x': choose from colours"),
        (["--store", store, "--images", "-1"], "--images -1: give 0 or more"),
        (["--store", store, "-o", tmp_path / "full"], "holds mine.txt, which no report wrote"),
        (["--store", store, "-o", tmp_path / "full" / "mine.txt"], "is not a folder"),
    ):
        outcome = run("report", *args)
        assert (args, outcome.status) == (args, 2)
        assert said in outcome.err
        assert outcome.err.count("\n") == 1
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_one_study_and_where_it_is(reported: Reported, run: Run, tmp_path: Path) -> None:
    outcome = run(
        "report", "--store", reported.store.uri, "--study", "colours", "-o", tmp_path / "r"
    )
    assert outcome.status == 0
    assert outcome.out.startswith(f"{tmp_path / 'r' / 'index.html'}: 7 pages, ")
    assert "0 forward passes" in outcome.out
