"""TOML files that people write, as read: where in the file a mistake is. Loads nothing heavy."""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regroup_pipelines.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from regroup_pipelines.json_types import JsonObject


@dataclass(frozen=True)
class TomlFile:
    """A file as read: `tables` is what the TOML in `text` says."""

    path: Path
    text: str
    tables: JsonObject

    @classmethod
    def read(cls, path: Path) -> TomlFile:
        """Read TOML; `UsageError` where that is not what the file holds."""
        try:
            text = path.read_text(encoding="utf-8")
            return cls(path, text, tomllib.loads(text))
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path} is not a TOML file: {error}") from None

    def mistake(
        self, path: Sequence[str], text: str, changed: Sequence[tuple[str, ...]] = ()
    ) -> UsageError:
        """The error that says where `text` holds; `changed`: paths that --set gave.

        `path`: keys, and the places (from "0") of what stands in arrays.
        """
        key, line, place = ".".join(path), self.line_of(path), tuple(path)
        for change in changed:
            if place[: len(change)] == change or (not line and change[: len(place)] == place):
                return UsageError(f"--set {'.'.join(change)}: {text}")
        where = f"{self.path}, line {line}" if line else str(self.path)
        return UsageError(f"{where}: {key}: {text}" if key else f"{where}: {text}")

    def line_of(self, path: Sequence[str]) -> int | None:
        """The line, from 1, of the statement that gives `path`, or what holds it; None: none does.

        The TOML parser names no lines: the statement is the one after which the path is there.
        """
        lines = self.text.splitlines(keepends=True)
        stops = range(1, len(lines) + 1)
        # Once there a path stays there: by halves, since a file may hold a thousand statements.
        found = bisect_left(stops, True, key=lambda stop: _given(lines, stop, path))
        if found < len(stops):
            return stops[found]
        return self.line_of(path[:-1]) if path else None


def _given(lines: Sequence[str], stop: int, path: Sequence[str]) -> bool:
    """Whether the statements that end at line `stop`, or the one that it is within, give `path`."""
    for end in range(stop, len(lines) + 1):
        try:
            return _has(tomllib.loads("".join(lines[:end])), path)
        except tomllib.TOMLDecodeError:
            continue  # within a statement of several lines
    return False


def _has(tables: Any, path: Sequence[str]) -> bool:
    for key in path:
        if isinstance(tables, list) and key.isdigit() and int(key) < len(tables):
            tables = tables[int(key)]
        elif isinstance(tables, dict) and key in tables:
            tables = tables[key]
        else:
            return False
    return bool(path)
