"""Progress of one dispatch: a bar on a terminal, JSON lines in a log; always on standard error."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO

from regroup_cluster.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import TaskID

    from regroup_cluster.dispatch.blocks import BlockReport

LINE_EVERY_S = 30.0
_NUMBERS = re.compile(r"(0x)?[0-9a-f]*\d[0-9a-f]*")


class Progress(Protocol):
    """Receives the outcomes of one dispatch's blocks from the driver."""

    def start(self, blocks: int) -> None:
        """Begin a dispatch of `blocks` blocks."""
        ...

    def update(self, report: BlockReport) -> None:
        """Receive the report of a finished block."""
        ...

    def tick(self) -> None:
        """Refresh; called about every second, whether or not a block has finished."""
        ...

    def retry(self, block: int, reason: str) -> None:
        """Receive the reason why an attempt at `block` failed; it will be tried again."""
        ...

    def failure(self, block: int, reason: str) -> None:
        """Receive the reason why `block` failed for good."""
        ...

    def close(self) -> None:
        """End the dispatch, however it went."""
        ...


def make_progress(step: str, samples: int, skipped: int, stream: TextIO | None = None) -> Progress:
    """Return the progress of a step: a bar on a terminal, else periodic JSON lines.

    Args:
        step: what is being made.
        samples: of the blocks to process.
        skipped: blocks that the store holds already.
        stream: standard error by default.
    """
    stream = stream or sys.stderr
    counts = ProgressCounts(step, samples, skipped)
    terminal = stream.isatty()
    return TerminalProgress(counts, stream) if terminal else JsonLinesProgress(counts, stream)


class Broadcast:
    """Forwards everything to several progresses."""

    def __init__(self, *listeners: Progress) -> None:
        self._listeners = listeners

    def start(self, blocks: int) -> None:
        """Forward to all."""
        for each in self._listeners:
            each.start(blocks)

    def update(self, report: BlockReport) -> None:
        """Forward to all."""
        for each in self._listeners:
            each.update(report)

    def tick(self) -> None:
        """Forward to all."""
        for each in self._listeners:
            each.tick()

    def retry(self, block: int, reason: str) -> None:
        """Forward to all."""
        for each in self._listeners:
            each.retry(block, reason)

    def failure(self, block: int, reason: str) -> None:
        """Forward to all."""
        for each in self._listeners:
            each.failure(block, reason)

    def close(self) -> None:
        """Forward to all."""
        for each in self._listeners:
            each.close()


@dataclass
class ProgressCounts:
    """Counts of one dispatch.

    Attributes:
        step: what is being made.
        total_samples: samples of the blocks to process.
        skipped_blocks: blocks that the store holds already.
        total_blocks: blocks to process.
        blocks: finished blocks.
        samples: rows of the finished blocks.
        failed_samples: rows among them with status "failed".
        retries: failed attempts at blocks that were tried again.
        failed_blocks: blocks that failed for good.
        clock: monotonic seconds.
    """

    step: str
    total_samples: int
    skipped_blocks: int
    total_blocks: int = 0
    blocks: int = 0
    samples: int = 0
    failed_samples: int = 0
    retries: int = 0
    failed_blocks: int = 0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    _told: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def start(self, blocks: int) -> None:
        """Start the clock."""
        self.total_blocks = blocks
        self.started = self.clock()

    def update(self, report: BlockReport) -> None:
        """Count a finished block."""
        self.blocks += 1
        self.samples += report.samples
        self.failed_samples += report.failed

    def is_news(self, reason: str) -> bool:
        """Return whether no attempt is known yet that failed for that reason, numbers apart."""
        key = without_numbers(last(reason))
        new = key not in self._told
        self._told.add(key)
        return new

    def describe(self) -> dict[str, str | int | float | None]:
        """Return the counts as plain JSON, with samples/s and the seconds left (None: unknown)."""
        seconds = self.clock() - self.started
        rate = self.samples / seconds if seconds > 0 else 0.0
        left = max(0, self.total_samples - self.samples)
        return {
            "step": self.step,
            "blocks": self.blocks,
            "total_blocks": self.total_blocks,
            "skipped_blocks": self.skipped_blocks,
            "failed_blocks": self.failed_blocks,
            "retries": self.retries,
            "samples": self.samples,
            "total_samples": self.total_samples,
            "failed_samples": self.failed_samples,
            "samples_per_second": round(rate, 2),
            "seconds": round(seconds, 1),
            "seconds_left": round(left / rate, 1) if rate else None,
        }


class JsonLinesProgress:
    """Prints a JSON line every `every_s` seconds, and one per reason why attempts are made again.

    How a step ended, and why blocks failed for good, the driver says in sentences.
    """

    def __init__(
        self, counts: ProgressCounts, stream: TextIO, every_s: float = LINE_EVERY_S
    ) -> None:
        self._counts, self._stream, self._every = counts, stream, every_s

    def start(self, blocks: int) -> None:
        """Start the clock; the first line is printed after `every_s`."""
        self._counts.start(blocks)
        self._printed = self._counts.started

    def update(self, report: BlockReport) -> None:
        """Count a finished block."""
        self._counts.update(report)

    def tick(self) -> None:
        """Print a line when it is due: a block may take longer than the interval."""
        if self._counts.clock() - self._printed >= self._every:
            self._printed = self._counts.clock()
            self._print({"event": "progress", **self._counts.describe()})

    def retry(self, block: int, reason: str) -> None:
        """Print a failed attempt, unless one was printed with the same reason."""
        self._counts.retries += 1
        if self._counts.is_news(reason):
            said = {"step": self._counts.step, "block": block, "reason": last(reason)}
            self._print({"event": "retry", **said})

    def failure(self, block: int, reason: str) -> None:  # noqa: ARG002
        """Count a failed block."""
        self._counts.failed_blocks += 1

    def close(self) -> None:
        """Do nothing: the step's sentence follows."""

    def _print(self, line: object) -> None:
        print(json.dumps(line), file=self._stream, flush=True)


class TerminalProgress:
    """A bar with samples, samples/s, time left and failures; removed when closed."""

    def __init__(self, counts: ProgressCounts, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._counts = counts
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[counts]}", markup=False),
            TimeRemainingColumn(),
            console=Console(file=stream),
            transient=True,
        )
        self._task: TaskID

    def start(self, blocks: int) -> None:
        """Show the bar."""
        self._counts.start(blocks)
        total = self._counts.total_samples
        self._task = self._bar.add_task(
            printable(self._counts.step), total=total, counts=self._summary()
        )
        self._bar.start()

    def update(self, report: BlockReport) -> None:
        """Advance the bar."""
        self._counts.update(report)
        self._show()

    def tick(self) -> None:
        """Do nothing: the bar refreshes itself."""

    def retry(self, block: int, reason: str) -> None:
        """Print a failed attempt above the bar."""
        self._counts.retries += 1
        if self._counts.is_news(reason):
            self._print(f"block {block} is tried again: {last(reason)}")

    def failure(self, block: int, reason: str) -> None:  # noqa: ARG002
        """Count a failed block."""
        self._counts.failed_blocks += 1
        self._show()

    def close(self) -> None:
        """Remove the bar."""
        self._bar.stop()

    def _print(self, line: str) -> None:
        shown = printable(f"{self._counts.step}: {line}")
        self._bar.console.print(shown, markup=False, emoji=False, highlight=False)
        self._show()

    def _show(self) -> None:
        self._bar.update(self._task, completed=self._counts.samples, counts=self._summary())

    def _summary(self) -> str:
        now = self._counts.describe()
        skipped, failed = self._counts.skipped_blocks, self._counts.failed_blocks
        return (
            f"{now['samples']}/{now['total_samples']} samples, "
            f"{now['samples_per_second']:g} samples/s"
            + (f", {skipped} blocks skipped" if skipped else "")
            + (f", {failed} blocks FAILED" if failed else "")
        )


def without_numbers(reason: str) -> str:
    """Return a reason with its numbers (of a block, a process, an address) made alike."""
    return _NUMBERS.sub("#", reason)


def last(reason: str) -> str:
    """Return the last line of a traceback: the exception."""
    return reason.strip().splitlines()[-1] if reason.strip() else "no reason given"
