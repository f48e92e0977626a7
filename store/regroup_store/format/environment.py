"""What is recorded beside an element and never hashed: time, library versions, the code."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path
from typing import TYPE_CHECKING

from regroup_store.errors import StoreUsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PACKAGES = ("regroup-ray", "numpy", "zarr", "pyarrow", "torch", "ray")
# The commit of a copy that git knows nothing of: a job's working directory, an image.
COMMIT_VARIABLE = "REGROUP_COMMIT"
_COMMIT = re.compile(r"([0-9a-f]{7,64})(-dirty)?")

_code: dict[str, str] = {}


def record_code(digests: Mapping[str, str]) -> None:
    """Have all later records of this process name the digests of the packages' sources."""
    _code.update(digests)


def environment_record(extra: Mapping[str, object]) -> dict[str, object]:
    """Collect the time (UTC, ISO 8601), versions, the git commit (None: unknown) and the code.

    Args:
        extra: more to record.

    Raises:
        StoreUsageError: REGROUP_COMMIT is no commit.
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **_versions()},
        "git_commit": git_commit(),
        **({"code": dict(_code)} if _code else {}),
        **extra,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_dirty() -> bool | None:
    """Whether tracked files differ from the commit; None where that is unknown."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    if changes is not None:
        return bool(changes)
    told = _told_commit()
    return None if told is None else bool(told[2])


def git_commit() -> str | None:
    """The commit of the code that runs; None where that is unknown.

    That of its checkout, else the one that REGROUP_COMMIT names, else that of the repository which
    pip installed it from.

    Raises:
        StoreUsageError: REGROUP_COMMIT is no commit.
    """
    if (found := _git("rev-parse", "HEAD")) is not None:
        return found
    told = _told_commit()
    return told[1] if told else _installed_commit()


def _told_commit() -> re.Match[str] | None:
    told = os.environ.get(COMMIT_VARIABLE, "")
    found = _COMMIT.fullmatch(told)
    if told and not found:
        raise StoreUsageError(
            f"{COMMIT_VARIABLE}={told} is no commit: give what `git describe --always --dirty "
            "--abbrev=40 --exclude='*'` says"
        )
    return found


def _installed_commit() -> str | None:
    """The commit that pip recorded, where this is the code that it installed (PEP 610)."""
    try:
        installed: Distribution = distribution("regroup-ray")
    except PackageNotFoundError:
        return None
    here = Path(str(installed.locate_file(""))).resolve() == Path(__file__).resolve().parents[2]
    source = json.loads(installed.read_text("direct_url.json") or "{}") if here else {}
    commit = source.get("vcs_info", {}).get("commit_id")
    return commit if isinstance(commit, str) else None


def _git(*command: str) -> str | None:
    """Output of a git command in the checkout that this code runs from, or None."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return None
    git = ["git", "-C", str(folder), *command]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
