"""The output folder of a command: its files stay inside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.errors import UsageError
from regroup_store.backends.links import first_link

if TYPE_CHECKING:
    from pathlib import Path


def output_file(folder: Path, path: Path) -> Path:
    """Make the folders of `path`, a file below the output folder, and return it.

    Raises:
        UsageError: a part of it below `folder` is a link, which would lead the file elsewhere.
    """
    if place := first_link(folder, path):
        raise UsageError(
            f"{place} is a link, and nothing is written outside of the output folder: remove it, "
            "or name another folder"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
