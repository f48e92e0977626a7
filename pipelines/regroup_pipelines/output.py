"""Standard output, whose reader may go away (`| head`) while a command still works."""

from __future__ import annotations

import os
import sys


def write_line(text: str) -> None:
    """Print `text` at once; where nobody reads any more, let this and all that follows go."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard_output()


def discard_output() -> None:
    """Send standard output nowhere: Python flushes it once more as it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
