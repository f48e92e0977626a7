"""Where a report is written: a folder that is replaced whole, and only where it is ours."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from regroup_pipelines.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARKER = "regroup-report.json"
_FORMAT = "regroup-report"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def check_output(output: Path) -> None:
    """Refuse a place that holds what is no report of ours.

    Raises:
        UsageError: it is a file, or a folder with something that no report wrote.
    """
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise UsageError(f"--output {output} is not a folder: name a new or an empty one")
    if not output.exists() or not any(output.iterdir()):
        return
    foreign = sorted(_files(output) - _written(output))
    if foreign:
        raise UsageError(
            f"--output {output} holds {foreign[0]}, which no report wrote: name a new or an empty "
            "folder, or move it away"
        )


def _files(folder: Path) -> set[str]:
    """Everything in a folder that is not a folder itself, and folders that are empty."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir())
    }


def _written(folder: Path) -> set[str]:
    """The files that the report in a folder says it wrote; none where there is no report."""
    try:
        marker = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    if not isinstance(marker, dict) or marker.get("format") != _FORMAT:
        return set()
    return {str(name) for name in marker.get("files", [])} | {_MARKER}


@contextmanager
def replaced_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside `output` that takes its place, whole, once the block is done.

    Until then, and where the block raises or the process is killed, `output` stays as it was.

    Raises:
        UsageError: `output` is not ours to replace, or its parent cannot be written.
    """
    check_output(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error}") from error
    try:
        yield draft
        _seal(draft)
        check_output(output)
        _swap(draft, output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _seal(draft: Path) -> None:
    """Write the marker, and give the folder the permissions of a new one."""
    marker = {"format": _FORMAT, "files": sorted(_files(draft))}
    (draft / _MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
    mask = os.umask(0)
    os.umask(mask)
    draft.chmod(0o777 & ~mask)


def _swap(draft: Path, output: Path) -> None:
    """Put `draft` in the place of `output`, and what was there in its own."""
    if not output.exists():
        draft.rename(output)
    elif not _exchange(draft, output):
        # No atomic exchange here: the old report waits beside for the moment between two renames.
        aside = draft.with_name(f"{draft.name}-old")
        output.rename(aside)
        draft.rename(output)
        aside.rename(draft)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    paths = (os.fsencode(one.absolute()), os.fsencode(other.absolute()))
    done: int = rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    return done == 0
