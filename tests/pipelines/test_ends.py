"""Every end of a command: one sentence on standard error, and the right exit status."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from regroup_pipelines import cli
from regroup_pipelines.errors import explained, received_signal, stop_at_signals
from regroup_pipelines.output import LastingStream
from regroup_store.format.store import open_store
from tests.pipelines.conftest import Outcome, Run

REGROUP = f"{sys.executable} -m regroup_pipelines.cli"


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Put the handlers of this process's signals back; SIGHUP is not ignored, as under nohup."""
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU, signal.SIGUSR1]
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def ls(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Outcome]:
    """Run `regroup ls` with something else in place of its work."""

    def call(work: Callable[[], Any]) -> Outcome:
        monkeypatch.setattr(cli, "program_of", lambda command: lambda config: work())
        return run("ls", "--store", "s")

    return call


def raiser(error: BaseException) -> Callable[[], NoReturn]:
    def work() -> NoReturn:
        raise error

    return work


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SIGTERM", "terminated: the blocks"),
        ("SIGHUP", "terminated by SIGHUP: the blocks"),
        ("SIGXCPU", "terminated by SIGXCPU: the blocks"),
        ("SIGUSR1", "terminated by SIGUSR1: the blocks"),
        ("SIGINT", "interrupted: the blocks"),
    ],
)
def test_a_signal_ends_a_command_with_a_sentence(
    ls: Callable[[Callable[[], Any]], Outcome], name: str, said: str
) -> None:
    number = getattr(signal, name)
    done = ls(lambda: signal.raise_signal(number))
    assert done.status == 128 + number
    (line,) = done.err.splitlines()
    assert line.startswith(f"regroup ls: {said}")
    assert line.endswith("run the same command again to continue")
    assert received_signal() == (0 if name == "SIGINT" else number)


def test_a_signal_within_a_call_of_ray_is_still_that_signal(
    ls: Callable[[Callable[[], Any]], Outcome],
) -> None:
    """Ray's own code takes the handler's exception for its own, and raises another one."""

    def within_ray() -> NoReturn:
        try:
            signal.raise_signal(signal.SIGHUP)
        except SystemExit:
            raise SystemExit(1) from None
        raise AssertionError

    done = ls(within_ray)
    assert done.status == 129
    assert "terminated by SIGHUP" in done.err


def test_what_nohup_ignores_stays_ignored_and_what_a_shell_ignores_in_the_background_does_not(
    ls: Callable[[Callable[[], Any]], Outcome],
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert ls(lambda: signal.raise_signal(signal.SIGHUP)).status == 0
    assert ls(lambda: signal.raise_signal(signal.SIGINT)).status == 130
    signal.signal(signal.SIGINT, handler := lambda *_: None)
    stop_at_signals()
    assert signal.getsignal(signal.SIGINT) is handler, "a program's own handler is its own"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), 2, "choose a shorter name"),
        (OSError(errno.ENOSPC, "No space left on device", "/r/x"), 1, "/r/x: No space left on dev"),
        (OSError(errno.ENOSPC, "No space", "/from", None, "/to"), 1, "/to: No space: free space"),
        (OSError(errno.ENOENT, "No such file", "/from", None, "/to"), 1, "/from: No such file: "),
        (PermissionError(errno.EACCES, "Permission denied", "/r"), 1, "/r: Permission denied: cha"),
        (OSError(errno.EIO, "Input/output error"), 1, "Input/output error: check it, then run"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), 1, "Connection reset"),
        (ValueError("embedded null byte"), 2, "a path holds a NUL character"),
        (ValueError("open: embedded null character in path"), 2, "a path holds a NUL character"),
        (MemoryError(), 1, "out of memory"),
        (SystemExit("no"), 1, "something in it ended the process by sys.exit('no')"),
        (SystemExit(0), 1, "something in it ended the process by sys.exit(0)"),
    ],
)
def test_what_goes_wrong_around_a_command_is_one_sentence(
    ls: Callable[[Callable[[], Any]], Outcome], error: BaseException, status: int, said: str
) -> None:
    done = ls(raiser(error))
    assert done.status == status
    (line,) = done.err.splitlines()
    assert line.startswith("regroup ls: ")
    assert said in line
    assert len(line) < 300


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    assert explained(ValueError("a mistake")) is None
    assert explained(OSError("made by hand")) is None


@pytest.mark.parametrize(
    "words", [("--store", "x" * 300), ("--store", "y/" * 3000), ("--store", "z" * 200 + "/" * 4096)]
)
def test_a_path_that_is_too_long(run: Run, words: tuple[str, ...]) -> None:
    done = run("ls", *words)
    assert done.status == 2
    (line,) = done.err.splitlines()
    assert line.endswith(": choose a shorter name") or "there is no store at" in line


def test_a_word_that_is_no_text_is_refused(run: Run) -> None:
    done = run("ls", "--store", os.fsdecode(b"caf\xe9"))
    assert done.status == 2
    assert done.err.startswith("regroup: caf\\udce9 is not UTF-8")


FULL = "regroup: standard output cannot be written (No space left on device)"


@pytest.mark.parametrize("words", ["--help", "ls --help"])
def test_an_output_that_takes_nothing_fails_the_command_with_a_sentence(words: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*REGROUP.split(), *words.split()], stdout=full, stderr=subprocess.PIPE, text=True,
            check=False,
        )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(FULL)


@pytest.mark.parametrize("words", [("ls",), ("ls", "--json"), ("gc",)])
def test_the_work_is_done_though_its_output_takes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    open_store(str(tmp_path), create=True)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        done = run(*words, "--store", tmp_path)
        monkeypatch.undo()
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert line.startswith(FULL)


@pytest.mark.parametrize(
    ("words", "status"),
    [("lsx 2>/dev/full", 2), ("--help >&-", 0), ("--help >&- 2>&- <&-", 0), ("lsx 2>&-", 2)],
)
def test_streams_that_are_closed_or_full_change_no_status(words: str, status: int) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{REGROUP} {words}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EPIPE, errno.ENXIO])
def test_a_log_on_a_terminal_that_was_closed_is_lost_without_a_word(
    number: int, tmp_path: Path
) -> None:
    class Closed:
        """A stream whose file goes away."""

        def __init__(self) -> None:
            self.file = (tmp_path / "log").open("w")
            self.broken = True

        def write(self, text: str) -> int:
            if self.broken:
                self.broken = False
                raise OSError(number, os.strerror(number))
            return self.file.write(text)

        def flush(self) -> None:
            self.file.flush()

        def fileno(self) -> int:
            return self.file.fileno()

    closed = Closed()
    stream = LastingStream(closed)
    print("first", file=stream, flush=True)
    print("second", file=stream, flush=True)
    closed.file.close()
    assert (tmp_path / "log").read_text() == "", "after its end the stream leads nowhere"
    assert (stream.lost is None) == (number == errno.EPIPE)
