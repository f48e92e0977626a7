from __future__ import annotations

import io
import json
import os
import select
import time
from typing import Any

import pytest

from regroup_cluster.dispatch.blocks import BlockReport
from regroup_cluster.dispatch.progress import (
    Broadcast,
    JsonLinesProgress,
    ProgressCounts,
    TerminalProgress,
    make_progress,
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def report(block: int, samples: int = 10, failed: int = 0) -> BlockReport:
    return BlockReport(block, True, samples, failed, samples, 0.1)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_terminal_gets_a_bar_and_a_log_gets_json() -> None:
    assert isinstance(make_progress("extract", 5, 0, Terminal()), TerminalProgress)
    assert isinstance(make_progress("extract", 5, 0, io.StringIO()), JsonLinesProgress)


def test_json_lines_come_every_thirty_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = JsonLinesProgress(ProgressCounts("extract x", 40, 2, clock=clock), stream)
    progress.start(4)
    for block, seconds in enumerate([20.0, 9.0, 1.0, 10.0]):
        clock.now += seconds
        progress.update(report(block, failed=block == 1))
        progress.tick()
    progress.close()
    (first,) = lines(stream)
    # At 30 s three of the four blocks are done: one sample a second, ten to go.
    assert first == {
        "event": "progress",
        "step": "extract x",
        "blocks": 3,
        "total_blocks": 4,
        "skipped_blocks": 2,
        "failed_blocks": 0,
        "retries": 0,
        "samples": 30,
        "total_samples": 40,
        "failed_samples": 1,
        "samples_per_second": 1.0,
        "seconds": 30.0,
        "seconds_left": 10.0,
    }


def test_json_lines_come_while_no_block_is_done() -> None:
    """A block of an attack lasts minutes; a log must show that the job lives."""
    clock, stream = Clock(), io.StringIO()
    progress = JsonLinesProgress(ProgressCounts("attack x", 40, 0, clock=clock), stream)
    progress.start(4)
    for _ in range(90):
        clock.now += 1.0
        progress.tick()
    progress.close()
    assert [(line["event"], line["seconds"]) for line in lines(stream)] == [
        ("progress", 30.0),
        ("progress", 60.0),
        ("progress", 90.0),
    ]


def test_attempts_that_are_made_again_are_lines_and_the_rest_is_told_once_by_the_driver() -> None:
    stream = io.StringIO()
    progress = make_progress("attack", 10, 0, stream)
    progress.start(1)
    progress.retry(7, "Traceback ...\nValueError: bad luck\n")
    progress.failure(7, "gone")
    progress.close()
    (retry,) = lines(stream)
    assert retry == {
        "event": "retry",
        "step": "attack",
        "block": 7,
        "reason": "ValueError: bad luck",
    }


def test_a_reason_is_printed_once_however_many_blocks_it_stops() -> None:
    stream = io.StringIO()
    progress = JsonLinesProgress(ProgressCounts("extract x", 40, 0, clock=Clock()), stream)
    progress.start(4)
    for block in range(4):
        progress.retry(block, f"Traceback ...\nOSError: worker {block} of pid 4{block}7: no route")
        progress.retry(block, "ValueError: something else")
    told = [(line["event"], line["block"], line["reason"][:7]) for line in lines(stream)]
    assert told == [("retry", 0, "OSError"), ("retry", 0, "ValueEr")]
    assert progress._counts.retries == 8


def test_the_bar_shows_samples_and_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # a fast machine's samples per second have many digits
    stream = Terminal()
    progress = make_progress("attack [pgd]", 20, 3, stream)
    progress.start(2)
    progress.update(report(0))
    progress.retry(1, "ValueError: [red]bad[/red] :warning: \x1b]0;owned\x07 \u202e\x9b31m")
    progress.failure(1, "ValueError: gone")
    progress.close()
    shown = stream.getvalue()
    assert "attack [pgd]" in shown
    assert "10/20 samples" in shown
    assert "3 blocks skipped" in shown
    told = (
        r"block 1 is tried again: ValueError: [red]bad[/red] :warning: \x1b]0;owned\x07 \u202e\x9b"
    )
    assert "".join(told.split()) in "".join(shown.split())
    assert not any(code in shown for code in ("\x1b]", "\x07", "\u202e", "\x9b"))
    assert "1 blocks FAILED" in shown


def read_until(reader: int, words: str) -> str:
    """What a terminal was sent until it showed `words`, or for a minute."""
    shown, deadline = "", time.monotonic() + 60
    while words not in shown and time.monotonic() < deadline:
        if select.select([reader], [], [], 0.1)[0]:
            shown += os.read(reader, 65536).decode()
    return shown


def test_on_a_real_terminal_the_bar_is_drawn() -> None:
    reader, writer = os.openpty()
    with os.fdopen(writer, "w") as terminal:
        progress = make_progress("extract x", 20, 0, terminal)
        progress.start(2)
        progress.update(report(0))
        shown = read_until(reader, "10/20 samples")
        progress.close()
    os.close(reader)
    assert "\x1b[" in shown
    assert "extract x" in shown
    assert "10/20 samples" in shown
    assert '"event"' not in shown


def test_all_are_told() -> None:
    tallies = [ProgressCounts("extract", 20, 0) for _ in range(2)]
    progress = Broadcast(*(JsonLinesProgress(each, io.StringIO()) for each in tallies))
    progress.start(2)
    progress.update(report(0))
    progress.retry(1, "ValueError: once")
    progress.failure(1, "ValueError: twice")
    progress.tick()
    progress.close()
    for each in tallies:
        assert (each.blocks, each.total_blocks, each.retries, each.failed_blocks) == (1, 2, 1, 1)
