"""Logging of the commands: lines on standard error."""

from __future__ import annotations

import sys


def log(line: str) -> None:
    """Write one line of log to standard error."""
    print(line, file=sys.stderr, flush=True)
