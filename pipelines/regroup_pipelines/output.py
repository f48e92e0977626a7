"""Standard output and error: readers go away (`| head`), disks fill up, terminals are closed."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class LastingStream:
    """A stream that goes on when nothing can be written to it any more; what follows is lost.

    Attributes:
        lost: why something was lost, if its reader did not just go away.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Write `text`, or nothing."""
        with self._unbroken():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop what is buffered."""
        with self._unbroken():
            self._stream.flush()

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._discard()
        except OSError as error:
            self.lost = self.lost or error
            self._discard()

    def _discard(self) -> None:
        """Send the stream nowhere: Python flushes it once more as it exits."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_streams() -> Iterator[LastingStream]:
    """Make this process's standard streams last meanwhile; gives that of the output."""
    open_closed_streams()
    before = sys.stdout, sys.stderr
    out, err = LastingStream(sys.stdout), LastingStream(sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def open_closed_streams() -> None:
    """Open on nothing what the caller closed (`>&-`): a file would take its number, and its text.

    Text that a stream's encoding lacks is written as its escape.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if not _is_open(number):
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - for good
        elif hasattr(stream, "reconfigure") and mode == "w":
            stream.reconfigure(errors="backslashreplace")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def write_line(text: str) -> None:
    """Print `text` on standard output at once."""
    print(text, flush=True)
