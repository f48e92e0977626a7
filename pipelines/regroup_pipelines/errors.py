"""Errors of the commands. A message says what is wrong, where, and what to do."""

import errno
import signal

from regroup_pipelines.json_types import JsonObject


class UsageError(Exception):
    """Invalid options or inputs (exit status 2)."""

    exit_status = 2


class DamageFoundError(Exception):
    """The store is damaged (exit status 1).

    Attributes:
        summary: everything that is damaged, for --json.
    """

    exit_status = 1

    def __init__(self, message: str, summary: JsonObject) -> None:
        super().__init__(message)
        self.summary = summary


class IncompleteError(Exception):
    """Some blocks failed; all others are committed (exit status 1)."""

    exit_status = 1


class UnreliableError(IncompleteError):
    """An attack could not work, and --strict refuses its numbers (exit status 1)."""


# Signals that ask a process to end: of `ray job stop`, a closed terminal, a batch system.
STOPPING = ("SIGTERM", "SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2")
_WHAT_TO_DO = {
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "check that it exists",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.ENOSPC: "free space there, then run the same command again",
    errno.EDQUOT: "free space there, then run the same command again",
}


class TerminatedError(SystemExit):
    """A signal asks the process to end: it unwinds, so that workers end and files are closed.

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = number


def stop_at_signals() -> None:
    """Have every signal of `STOPPING`, and Ctrl-C, unwind the process from now on.

    One that the caller has set to be ignored stays so (nohup, and SIGHUP), but for SIGINT: shells
    without job control ignore it for what they start by `&`, which then could not be interrupted.
    """
    _received.clear()
    for name in STOPPING:
        number = getattr(signal, name, None)
        if number and (name == "SIGTERM" or signal.getsignal(number) != signal.SIG_IGN):
            signal.signal(number, _terminate)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_received: list[int] = []


def received_signal() -> int:
    """Return the number of the first signal that was to end this command; 0: none was."""
    return _received[0] if _received else 0


def _terminate(number: int, frame: object) -> None:  # noqa: ARG001
    _received.append(number)
    raise TerminatedError(number)


def signal_behind(error: BaseException) -> int:
    """Return the number of the signal that `error` unwinds the process for; 0: it is another error.

    Ray raises a SystemExit of its own in place of ours where the signal arrives within its calls.
    """
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    if isinstance(error, TerminatedError):
        return error.signal
    if not isinstance(error, SystemExit):
        return 0
    return received_signal() or (signal.SIGTERM if error.code == signal.SIGTERM else 0)


def interruption(number: int) -> str:
    """Say that signal `number` ended the command, and how to go on."""
    word = "interrupted" if number == signal.SIGINT else "terminated"
    by = "" if number in (signal.SIGINT, signal.SIGTERM) else f" by {signal.Signals(number).name}"
    return (
        f"{word}{by}: the blocks that were committed stay in the store; run the same command again "
        "to continue"
    )


def explained(error: BaseException) -> tuple[int, str] | None:
    """Return the exit status and the sentence of an error; None where it is a mistake of ours."""
    if (status := getattr(error, "exit_status", None)) is not None:
        return int(status), str(error)
    if isinstance(error, MemoryError):
        return 1, "out of memory: give the command more, or less to do (--batch, --block-rows)"
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return 2, "a path holds a NUL character, which no file name can: correct it"
    if isinstance(error, OSError) and error.strerror:
        # Of a copy the first name is where it comes from, which is not what is full.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        name = (full and error.filename2) or error.filename
        place = f"{_shortened(str(name))}: " if name else ""
        advice = _WHAT_TO_DO.get(error.errno or 0, "check it, then run the same command again")
        status = 2 if error.errno == errno.ENAMETOOLONG else 1
        return status, f"{place}{error.strerror}: {advice}"
    if isinstance(error, SystemExit):  # of a module of the user's, say
        return 1, f"something in it ended the process by sys.exit({error.code!r})"
    return None


def _shortened(path: str) -> str:
    """Return `path` without its middle where it is too long to read."""
    return path if len(path) <= 200 else f"{path[:100]}[...]{path[-80:]}"
