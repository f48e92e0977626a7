"""Where the files of a dataset are: found by glob, and what to say where nothing is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from regroup_store.errors import StoreUsageError
from regroup_store.sources.files import file_name, list_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MAGIC = re.compile(r"([*?[])")


def find_by_name(fs: Any, patterns: Iterable[str], spec: str, example: str) -> dict[str, str]:
    """Find the files that the glob patterns match: their paths by name, sorted by name.

    A part of a pattern that exists as it is written, such as the folder ``[v1] data``, stands for
    itself.

    Args:
        fs: the file system.
        patterns: globs on it.
        spec: of the source, for errors.
        example: of a valid spec, for errors.

    Raises:
        StoreUsageError: a pattern matches nothing, or two files share their name.
    """
    matches = [path for pattern in patterns for path in _matches(fs, pattern, spec, example)]
    paths: dict[str, str] = {}
    for path in sorted(sorted(set(matches)), key=file_name):
        if (name := file_name(path)) in paths:
            raise StoreUsageError(
                f"{spec}: {paths[name]} and {path} have the same name, which "
                "sample ids are made of; rename one, or index them as two datasets"
            )
        paths[name] = path
    return paths


def _matches(fs: Any, pattern: str, spec: str, example: str) -> list[str]:
    if not _MAGIC.search(pattern):
        found = [pattern] if fs.isfile(pattern) else []
    else:
        # Of a pattern that matches nothing the brackets may be part of the names.
        attempts = (_literal(fs, pattern), pattern.replace("[", "[[]"))
        globs = ([path for path in fs.glob(each) if fs.isfile(path)] for each in attempts)
        found = next(filter(None, globs), [])
    if not found:
        missing = "" if spec.endswith(pattern) else f" {file_name(pattern)}"
        raise StoreUsageError(
            f"{spec}: no file matches{missing}; name files, as in {example!r}"
            f"{_instead(fs, pattern)}"
        )
    return found


def _literal(fs: Any, pattern: str) -> str:
    """`pattern` with the wildcards of each part escaped that exists as it is written."""
    escaped: list[str] = []
    written = ""
    for part in pattern.split("/"):
        written = f"{written}/{part}" if escaped else part
        literal = _MAGIC.search(part) and fs.exists(written)
        escaped.append(_MAGIC.sub(r"[\1]", part) if literal else part)
    return "/".join(escaped)


def _instead(fs: Any, pattern: str) -> str:
    """What is there in place of the files of `pattern`: "" or the end of a sentence."""
    if fs.isdir(pattern):
        return f" (that is a folder, which holds {some_names(_names(fs, pattern))})"
    head = pattern[: match.start()] if (match := _MAGIC.search(pattern)) else pattern
    return what_is_there(fs, head.rpartition("/")[0])


def require_folder(fs: Any, path: str, spec: str, what: str) -> None:
    """Check that there is a folder at `path`.

    Args:
        fs: the file system.
        path: of the folder.
        spec: of the source, for errors.
        what: the folder has to hold.

    Raises:
        StoreUsageError: there is none.
    """
    if fs.isdir(path):
        return
    if fs.exists(path):
        raise StoreUsageError(f"{spec}: there is no such folder: it is a file; name {what}")
    raise StoreUsageError(
        f"{spec}: there is no such folder; name {what}{what_is_there(fs, path.rpartition('/')[0])}"
    )


def what_is_there(fs: Any, folder: str) -> str:
    """What the nearest folder that exists holds, to complete a sentence; "" where none does."""
    while folder.strip("/") and not fs.isdir(folder):
        folder = folder.rpartition("/")[0]
    if not folder.strip("/"):
        return ""
    return f" ({folder} holds {some_names(_names(fs, folder))})"


def _names(fs: Any, folder: str) -> list[str]:
    return sorted(name for name, _ in list_folder(fs, folder))


def some_names(names: Sequence[str]) -> str:
    """A few of the names, for a sentence."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") or "nothing"
