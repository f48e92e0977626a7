"""The folder of Ray's sessions on this machine: readable by this user alone, with a short path.

Ray's own default, `/tmp/ray`, is open to every user of the machine.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from regroup_cluster.errors import ClusterUsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

# The longest path of a Unix socket, and what Ray puts below our folder for one.
_SOCKET_BYTES = (104 if sys.platform == "darwin" else 108) - 1
_BELOW = "/ray/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store.1"
LONGEST = _SOCKET_BYTES - len(_BELOW)
# Ray writes about this much before the first block.
SPACE_BYTES = 2**20
# Logs of sessions that ended longer ago are removed.
KEPT_S = 7 * 24 * 3600.0


def session_folder() -> Path:
    """Make and return the folder: in `RAY_TMPDIR` where that is set, else where there is space.

    Raises:
        ClusterUsageError: there is no place for it.
    """
    refused = []
    for base in _places():
        try:
            # Ray opens the folder that it is given to everybody: it gets one within ours.
            folder = _private(Path(base) / f"regroup-{os.getuid()}") / "ray"
        except (OSError, ValueError) as error:
            refused.append(f"{base}: {getattr(error, 'strerror', None) or error}")
        else:
            _remove_old(folder)
            return folder
    raise ClusterUsageError(
        f"Ray cannot be started: there is no place for its session ({'; '.join(refused)}): set "
        "RAY_TMPDIR to a folder with a short path and free space that you may write"
    )


def _places() -> list[str]:
    if chosen := os.environ.get("RAY_TMPDIR"):
        return [chosen]
    given = [os.environ.get(name, "") for name in ("TMPDIR", "XDG_RUNTIME_DIR")]
    wanted = [given[0], "/tmp", "/var/tmp", given[1], "/dev/shm"]
    return list(dict.fromkeys(str(Path(place).absolute()) for place in wanted if place))


def _private(folder: Path) -> Path:
    """Make `folder` for this user alone; one that is another's, or a link, is refused."""
    if len(os.fsencode(folder)) > LONGEST:
        raise OSError(errno.ENAMETOOLONG, "its path is too long for a socket")
    folder.mkdir(0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OSError(errno.EPERM, f"{folder.name} in it belongs to someone else")
    folder.chmod(0o700)
    with tempfile.TemporaryFile(dir=folder) as trial:
        trial.write(bytes(SPACE_BYTES))
        trial.flush()
    return folder


def _remove_old(folder: Path) -> None:
    """Remove sessions that nobody has written to for long."""
    for session in folder.glob("session_*_*"):
        with suppress(OSError):
            if not session.is_symlink() and time.time() - max(_changes(session)) > KEPT_S:
                shutil.rmtree(session, ignore_errors=True)


def _changes(session: Path) -> Iterator[float]:
    yield session.stat().st_mtime
    logs = session / "logs"
    yield from (path.stat().st_mtime for path in (logs.iterdir() if logs.is_dir() else ()))
