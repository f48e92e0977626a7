"""Where the session of a local Ray lies: a short path that only this user can read."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regroup_cluster.errors import ClusterUsageError
from regroup_cluster.session_folder import KEPT_S, session_folder

# As Ray names it, with the longest process id of Linux; a Unix socket's path has 107 bytes.
SOCKET = "session_2026-11-30_22-06-00_123456_4194304/sockets/plasma_store"
OURS = f"regroup-{os.getuid()}"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a short path that RAY_TMPDIR names."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rg") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_can_read_it_whatever_its_mode_was(place: Path) -> None:
    (place / OURS).mkdir()
    (place / OURS).chmod(0o777)
    folder = session_folder()
    assert folder == place / OURS / "ray"
    assert mode(place / OURS) == 0o700
    folder.mkdir()
    folder.chmod(0o777)  # as Ray does
    assert session_folder() == folder
    assert mode(place / OURS) == 0o700


@pytest.mark.parametrize("planted", ["link", "dangling link", "file", "folder of another user"])
def test_a_folder_that_a_neighbour_planted_is_not_used(
    place: Path, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = place / "theirs"
    if planted == "folder of another user":
        monkeypatch.setattr("os.getuid", lambda: 4242)
        (place / "regroup-4242").mkdir()
    elif planted == "file":
        (place / OURS).touch()
    else:
        (place / OURS).symlink_to(theirs)
        if planted == "link":
            theirs.mkdir(0o755)
    with pytest.raises(ClusterUsageError, match="there is no place for its session") as error:
        session_folder()
    assert str(place) in str(error.value)
    assert not theirs.exists() or mode(theirs) == 0o755


@pytest.mark.parametrize("length", [10, 40, 41, 60, 107, 300])
def test_a_socket_fits_below_it_for_any_length_of_tmpdir(
    place: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR")
    deep = place / ("d" * max(1, min(length - len(str(place)) - 1, 200)))
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    folder = session_folder()
    assert len(os.fsencode(folder / SOCKET)) <= 107
    assert mode(folder.parent) == 0o700
    if length == 10:
        assert folder.is_relative_to(deep)


@pytest.mark.parametrize("given", ["missing", "a file", "too long", "not writable"])
def test_a_tmpdir_that_cannot_be_used_is_named_where_it_was_chosen_for_ray(
    place: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {
        "missing": place / "nowhere",
        "a file": place / "file",
        "too long": place / ("x" * 60),
        "not writable": Path("/proc/self"),
    }[given]
    (place / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(chosen))
    with pytest.raises(ClusterUsageError, match="set RAY_TMPDIR to a folder") as error:
        session_folder()
    assert str(chosen) in str(error.value)
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", str(chosen))
    assert not session_folder().is_relative_to(chosen)


def test_a_full_disk_is_found_before_ray_starts(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(dir: Path) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(ClusterUsageError, match="No space left on device"):
        session_folder()


def test_old_sessions_are_removed_and_those_still_written_to_are_kept(place: Path) -> None:
    folder = session_folder()
    now = time.time()
    for name, folders_age, logs_age in (("a", 9e9, 9e9), ("b", 9e9, 10.0), ("c", 10.0, 10.0)):
        log = folder / f"session_{name}_1" / "logs" / "raylet.out"
        log.parent.mkdir(parents=True)
        log.touch()
        for path, age in ((log, logs_age), (log.parent.parent, folders_age)):
            os.utime(path, (now - min(age, 2 * KEPT_S),) * 2)
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (folder / "session_latest").symlink_to(elsewhere)
    session_folder()
    assert sorted(path.name for path in folder.iterdir()) == [
        "session_b_1", "session_c_1", "session_latest",
    ]  # fmt: skip
    assert elsewhere.exists()
