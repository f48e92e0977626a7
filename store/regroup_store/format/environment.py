"""What is recorded beside an element and never hashed: time, library versions, git commit."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_PACKAGES = ("regroup-ray", "numpy", "zarr", "pyarrow", "torch", "ray")


def environment_record(extra: Mapping[str, object]) -> dict[str, object]:
    """Collect the time (UTC, ISO 8601), versions and git commit (None outside a checkout).

    Args:
        extra: more to record.
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **_versions()},
        "git_commit": _git_commit(),
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
    """Whether tracked files differ from the commit; None outside a checkout."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return None if changes is None else bool(changes)


def _git_commit() -> str | None:
    return _git("rev-parse", "HEAD")


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
