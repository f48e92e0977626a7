"""TOML files and the line numbers of their keys, to locate mistakes. Loads nothing heavy."""

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
    """A TOML file as read.

    Attributes:
        path: the file.
        text: its content.
        tables: its content, parsed.
    """

    path: Path
    text: str
    tables: JsonObject

    @classmethod
    def read(cls, path: Path) -> TomlFile:
        """Read and parse a file.

        Raises:
            UsageError: it cannot be read, or is not valid TOML.
        """
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
        """Return an error that says where the mistake `text` is.

        Args:
            path: the keys that lead to the mistake; items of arrays by their position, from "0".
            text: what is wrong.
            changed: the key paths that --set changed.
        """
        key, line, place = ".".join(path), self.line_of(path), tuple(path)
        for change in changed:
            if place[: len(change)] == change or (not line and change[: len(place)] == place):
                return UsageError(f"--set {'.'.join(change)}: {text}")
        where = f"{self.path}, line {line}" if line else str(self.path)
        return UsageError(f"{where}: {key}: {text}" if key else f"{where}: {text}")

    def line_of(self, path: Sequence[str]) -> int | None:
        """Return the line, from 1, of the statement that defines `path` or its nearest parent.

        The TOML parser gives no line numbers, so the shortest prefix of the file that defines the
        path is searched for. None where no statement defines it.
        """
        lines = self.text.splitlines(keepends=True)
        stops = range(1, len(lines) + 1)
        # A path that a prefix defines stays defined, so bisection works; files may be long.
        found = bisect_left(stops, True, key=lambda stop: _given(lines, stop, path))
        if found < len(stops):
            return stops[found]
        return self.line_of(path[:-1]) if path else None


def _given(lines: Sequence[str], stop: int, path: Sequence[str]) -> bool:
    """Return whether `path` exists after line `stop`, completing a statement that spans it."""
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
