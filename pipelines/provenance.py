"""What is recorded beside a fingerprint, never hashed: versions, time, commit, command."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("regroup-ray", "torch", "torchvision", "numpy", "ray", "zarr", "pyarrow", "foolbox")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The git commit of this source tree, or None outside a checkout."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    found = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None


def recorded() -> dict[str, Any]:
    """Versions, UTC time, git commit and Python version, as plain JSON (DESIGN §5)."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": _commit(),
        "python": sys.version.split()[0],
        "versions": {package: _version(package) for package in _PACKAGES},
    }
