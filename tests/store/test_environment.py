"""Which commit is recorded where the code runs from no checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regroup_store.errors import StoreUsageError
from regroup_store.format import environment
from regroup_store.format.environment import COMMIT_VARIABLE, environment_record, git_dirty

COMMIT = "8f14e45fceea167a5a36dedd4bea2543a2f1c9d0"


class Installed:
    """What pip knows of the project, installed where this code is unless said otherwise."""

    def __init__(self, source: Any, place: Path | None = None) -> None:
        self._source = source
        self._place = place or Path(environment.__file__).parents[2]

    def locate_file(self, name: str) -> Path:
        return self._place / name

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self._source is None else json.dumps(self._source)


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This code is a copy without .git that was not installed by pip from a repository."""
    monkeypatch.setattr(environment, "_git", lambda *command: None)
    monkeypatch.delenv(COMMIT_VARIABLE, raising=False)
    monkeypatch.setattr(environment, "distribution", lambda name: Installed(None))
    return monkeypatch


def recorded() -> object:
    return environment_record({})["git_commit"], git_dirty()


def test_a_copy_that_is_told_nothing_records_nothing(copied: pytest.MonkeyPatch) -> None:
    assert recorded() == (None, None)
    copied.setenv(COMMIT_VARIABLE, "")
    assert recorded() == (None, None)


@pytest.mark.parametrize(
    ("told", "commit", "dirty"),
    [(COMMIT, COMMIT, False), (f"{COMMIT}-dirty", COMMIT, True), ("8f14e45", "8f14e45", False)],
)
def test_a_copy_records_what_it_is_told(
    copied: pytest.MonkeyPatch, told: str, commit: str, dirty: bool
) -> None:
    copied.setenv(COMMIT_VARIABLE, told)
    assert recorded() == (commit, dirty)


@pytest.mark.parametrize("told", ["main", "$(git rev-parse HEAD)", "8F14E45", "8f14", "a" * 65])
def test_what_is_no_commit_is_refused(copied: pytest.MonkeyPatch, told: str) -> None:
    copied.setenv(COMMIT_VARIABLE, told)
    with pytest.raises(StoreUsageError, match="is no commit: give what `git describe"):
        recorded()


def test_what_pip_installed_from_a_repository_records_its_commit(
    copied: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = {"url": "https://host/x", "vcs_info": {"vcs": "git", "commit_id": COMMIT}}
    copied.setattr(environment, "distribution", lambda name: Installed(source))
    assert recorded() == (COMMIT, None)
    copied.setattr(environment, "distribution", lambda name: Installed(source, tmp_path))
    assert recorded() == (None, None), "this code is another copy than the installed one"
    folder = {"url": "file:///x", "dir_info": {}}
    copied.setattr(environment, "distribution", lambda name: Installed(folder))
    assert recorded() == (None, None)


def test_git_itself_is_asked_first(copied: pytest.MonkeyPatch) -> None:
    copied.setenv(COMMIT_VARIABLE, COMMIT)
    copied.setattr(environment, "_git", lambda *command: "" if "status" in command else "f" * 40)
    assert recorded() == ("f" * 40, False)
