"""The output folder of a report, replaced atomically and only if it holds nothing else."""

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
    """Check that a report may be written to `output`.

    Raises:
        UsageError: it is a file, or a folder with files that no report wrote.
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
    """Return the files and the empty folders below a folder."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir())
    }


def _written(folder: Path) -> set[str]:
    """Return the files that the report in a folder lists as its own; empty without a report."""
    try:
        marker = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    if not isinstance(marker, dict) or marker.get("format") != _FORMAT:
        return set()
    return {str(name) for name in marker.get("files", [])} | {_MARKER}


@contextmanager
def replaced_folder(output: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `output` as a whole when the with block succeeds.

    Until then, and if the block raises or the process is killed, `output` is unchanged.

    Raises:
        UsageError: `output` holds files that no report wrote, or its parent cannot be written.
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
    """Write the list of files, and give the folder the permissions of a new one."""
    marker = {"format": _FORMAT, "files": sorted(_files(draft))}
    (draft / _MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
    mask = os.umask(0)
    os.umask(mask)
    draft.chmod(0o777 & ~mask)


def _swap(draft: Path, output: Path) -> None:
    """Exchange `draft` and `output`, or rename `draft` where there is no `output`."""
    if not output.exists():
        draft.rename(output)
    elif not _exchange(draft, output):
        # No atomic exchange here: the old report is set aside between two renames.
        aside = draft.with_name(f"{draft.name}-old")
        output.rename(aside)
        draft.rename(output)
        aside.rename(draft)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders atomically; return False where the system does not support it."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    paths = (os.fsencode(one.absolute()), os.fsencode(other.absolute()))
    done: int = rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    return done == 0
