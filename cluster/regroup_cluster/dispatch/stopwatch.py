"""What an attempt at a block uses: seconds by phase, forward passes, peak memory of the process."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from regroup.forward_passes import forward_samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_T = TypeVar("_T")


class BlockClock:
    """Measures one attempt at a block, from its creation on.

    Attributes:
        phases: wall time in seconds by phase, such as read, network and write.
    """

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._started = time.perf_counter()
        self._forwarded = forward_samples()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside the context to the phase `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            add_seconds(self.phases, {name: time.perf_counter() - started})

    def each(self, name: str, items: Iterable[_T]) -> Iterator[_T]:
        """Yield `items`; the time spent waiting for each is added to the phase `name`."""
        source = iter(items)
        while True:
            with self.phase(name):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.perf_counter() - self._started

    @property
    def forward_passes(self) -> int:
        """Samples that went through a classifier of this process so far."""
        return forward_samples() - self._forwarded

    def restart_count(self) -> None:
        """Leave the forward passes made so far out of the count, such as those that trace taps."""
        self._forwarded = forward_samples()


def add_seconds(total: dict[str, float], more: Mapping[str, float]) -> None:
    """Add seconds by phase to `total`."""
    for phase, seconds in more.items():
        total[phase] = total.get(phase, 0.0) + seconds


def peak_rss_bytes() -> int:
    """Return the peak physical memory of this process, in bytes.

    On Linux not by `getrusage`, whose value survives exec: a small program started by a large one
    would report the peak of the large one.
    """
    with suppress(OSError), Path("/proc/self/status").open() as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
