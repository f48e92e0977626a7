"""One line of log on standard error."""

from __future__ import annotations

import sys


def log(line: str) -> None:
    """One line of log on standard error."""
    print(line, file=sys.stderr, flush=True)
