"""Logging of the commands: lines on standard error."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from regroup_cluster.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator


def log(line: str) -> None:
    """Write one line of log to standard error, what follows a newline in it (a traceback) indented.

    So no name from elsewhere can write a line of its own.
    """
    print(printable(line).replace("\n", "\n    "), file=sys.stderr, flush=True)


@contextmanager
def log_warnings() -> Iterator[None]:
    """Log what Python's warnings say, each once and without the line of source that gave it."""
    said = set[str]()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        """Log a warning that was not logged before."""
        text = " ".join(str(message).split())
        if text and text not in said:
            said.add(text)
            log(f"warning: {text}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
