"""What an attempt at a block used: seconds by phase, and the peak memory of its process."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

T = TypeVar("T")


class Phases:
    """A stopwatch with named phases.

    Attributes:
        seconds: wall time by phase.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count what is done inside as `phase`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            add_seconds(self.seconds, {phase: time.perf_counter() - started})

    def each(self, phase: str, items: Iterable[T]) -> Iterator[T]:
        """`items`, the waiting for each counted as `phase`."""
        source = iter(items)
        while True:
            with self(phase):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item


def add_seconds(total: dict[str, float], more: Mapping[str, float]) -> None:
    """Add seconds by phase to `total`."""
    for phase, seconds in more.items():
        total[phase] = total.get(phase, 0.0) + seconds


def peak_rss_bytes() -> int:
    """The most physical memory that this process has held, in bytes.

    Not `getrusage`'s where Linux knows better: that one survives exec, so a small program started
    by a large one would show the large one's.
    """
    with suppress(OSError), Path("/proc/self/status").open() as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
