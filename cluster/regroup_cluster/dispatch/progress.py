"""Progress of one dispatch: a bar on a terminal, JSON lines in a log; always on standard error."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import TaskID

    from regroup_cluster.dispatch.blocks import BlockReport

LINE_EVERY_S = 30.0


class Progress(Protocol):
    """Told by the driver what becomes of the blocks of one dispatch."""

    def start(self, blocks: int) -> None:
        """The dispatch of `blocks` blocks begins."""
        ...

    def update(self, report: BlockReport) -> None:
        """A block is done."""
        ...

    def tick(self) -> None:
        """Time has passed; called every second or so, whether or not a block is done."""
        ...

    def retry(self, block: int, reason: str) -> None:
        """An attempt at `block` failed; it will be tried again."""
        ...

    def failure(self, block: int, reason: str) -> None:
        """`block` was given up."""
        ...

    def close(self) -> None:
        """The dispatch is over, well or not."""
        ...


def make_progress(step: str, samples: int, skipped: int, stream: TextIO | None = None) -> Progress:
    """The progress of `step` over `samples` samples; `skipped` blocks were there already.

    A bar where `stream` (default: standard error) is a terminal, else a JSON line now and then.
    """
    stream = stream or sys.stderr
    tally = Tally(step, samples, skipped)
    return TerminalProgress(tally, stream) if stream.isatty() else JsonLinesProgress(tally, stream)


class Broadcast:
    """Several progresses told as one."""

    def __init__(self, *listeners: Progress) -> None:
        self._listeners = listeners

    def start(self, blocks: int) -> None:
        """Tell all."""
        for each in self._listeners:
            each.start(blocks)

    def update(self, report: BlockReport) -> None:
        """Tell all."""
        for each in self._listeners:
            each.update(report)

    def tick(self) -> None:
        """Tell all."""
        for each in self._listeners:
            each.tick()

    def retry(self, block: int, reason: str) -> None:
        """Tell all."""
        for each in self._listeners:
            each.retry(block, reason)

    def failure(self, block: int, reason: str) -> None:
        """Tell all."""
        for each in self._listeners:
            each.failure(block, reason)

    def close(self) -> None:
        """Tell all."""
        for each in self._listeners:
            each.close()


@dataclass
class Tally:
    """Counts of one dispatch.

    Attributes:
        step: what is being made.
        total_samples: samples that the dispatch will do.
        skipped_blocks: blocks that the store held already.
        failed_samples: rows with status "failed" in blocks that were done.
        failed_blocks: blocks given up.
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

    def __post_init__(self) -> None:
        self.started = self.clock()

    def start(self, blocks: int) -> None:
        """Begin to count, from now."""
        self.total_blocks = blocks
        self.started = self.clock()

    def update(self, report: BlockReport) -> None:
        """Count a block that is done."""
        self.blocks += 1
        self.samples += report.samples
        self.failed_samples += report.failed

    def describe(self) -> dict[str, str | int | float | None]:
        """The counts as plain JSON, with samples/s and the seconds left (None: not known yet)."""
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
    """A JSON line every `every_s` seconds, one for each failed attempt, and a last one."""

    def __init__(self, tally: Tally, stream: TextIO, every_s: float = LINE_EVERY_S) -> None:
        self._tally, self._stream, self._every = tally, stream, every_s

    def start(self, blocks: int) -> None:
        """Begin to count; the first line comes after `every_s`."""
        self._tally.start(blocks)
        self._printed = self._tally.started

    def update(self, report: BlockReport) -> None:
        """Count a block."""
        self._tally.update(report)

    def tick(self) -> None:
        """Print a line when it is time: blocks may last longer than that."""
        if self._tally.clock() - self._printed >= self._every:
            self._printed = self._tally.clock()
            self._print({"event": "progress", **self._tally.describe()})

    def retry(self, block: int, reason: str) -> None:
        """Print the failed attempt."""
        self._tally.retries += 1
        self._print(self._attempt("retry", block, reason))

    def failure(self, block: int, reason: str) -> None:
        """Print the block that was given up."""
        self._tally.failed_blocks += 1
        self._print(self._attempt("failure", block, reason))

    def close(self) -> None:
        """Print the last line."""
        self._print({"event": "end", **self._tally.describe()})

    def _attempt(self, event: str, block: int, reason: str) -> dict[str, str | int]:
        return {"event": event, "step": self._tally.step, "block": block, "reason": last(reason)}

    def _print(self, line: object) -> None:
        print(json.dumps(line), file=self._stream, flush=True)


class TerminalProgress:
    """A bar with blocks, samples/s, time left and failures; gone when closed."""

    def __init__(self, tally: Tally, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._tally = tally
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
        self._tally.start(blocks)
        total = self._tally.total_samples
        self._task = self._bar.add_task(self._tally.step, total=total, counts=self._counts())
        self._bar.start()

    def update(self, report: BlockReport) -> None:
        """Move the bar."""
        self._tally.update(report)
        self._show()

    def tick(self) -> None:
        """Nothing: the bar refreshes itself."""

    def retry(self, block: int, reason: str) -> None:
        """Say above the bar that an attempt failed."""
        self._tally.retries += 1
        self._say(f"block {block} is tried again: {last(reason)}")

    def failure(self, block: int, reason: str) -> None:
        """Say above the bar that a block was given up."""
        self._tally.failed_blocks += 1
        self._say(f"block {block} FAILED: {last(reason)}")

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()

    def _say(self, line: str) -> None:
        self._bar.console.print(f"{self._tally.step}: {line}", markup=False, highlight=False)
        self._show()

    def _show(self) -> None:
        self._bar.update(self._task, completed=self._tally.samples, counts=self._counts())

    def _counts(self) -> str:
        now = self._tally.describe()
        skipped, failed = self._tally.skipped_blocks, self._tally.failed_blocks
        return (
            f"{now['samples']}/{now['total_samples']} samples, "
            f"{now['samples_per_second']:g} samples/s"
            + (f", {skipped} blocks skipped" if skipped else "")
            + (f", {failed} blocks FAILED" if failed else "")
        )


def last(reason: str) -> str:
    """The last line of a traceback: what was raised."""
    return reason.strip().splitlines()[-1] if reason.strip() else "no reason given"
