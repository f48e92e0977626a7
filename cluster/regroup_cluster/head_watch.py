"""Notices the loss of a session's head, and ends the process with a sentence.

Left to itself Ray is silent for a minute and then ends the driver's process from within, without
unwinding: nothing of Python's runs any more, so that no record of the run would be written.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PERIOD_S = 1.0
# The head of a cluster may come back (KubeRay restarts it); Ray's own patience is a minute.
PATIENCE_S = 45.0
NOTICE_S = 10.0
REPLY_S = 5.0
GRACE_S = 2.0


@contextmanager
def watched_head(address: str, tell: Callable[[str], int]) -> Iterator[None]:
    """Watch the head meanwhile; on its loss call `tell` with a sentence, and end the process.

    Args:
        address: of the session, for the sentence.
        tell: returns the status to end with; called in the thread that watches, since the main
            thread may hang within Ray for good.
    """
    over = threading.Event()
    watch = HeadWatch(address, tell, over)
    threading.Thread(target=watch.run, name="head-watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()


class HeadWatch:
    """Looks at the head's processes where they are our own, and asks it whether it is there."""

    def __init__(self, address: str, tell: Callable[[str], int], over: threading.Event) -> None:
        self._ray = f"the Ray {'of this run' if address == 'local' else f'cluster at {address!r}'}"
        self._tell, self._over = tell, over
        self._looked = time.monotonic()
        self._silent = 0.0

    def run(self) -> None:
        """Look every `PERIOD_S` until the session is over or its head is lost."""
        while not self._over.wait(PERIOD_S):
            sentence = self.look()
            # The main thread may be unwinding: a signal can have ended us all.
            if sentence and not self._over.wait(GRACE_S):
                _end_process(self._tell(sentence))

    def look(self) -> str | None:
        """Return why the head is lost, in a sentence; None while it is there or may come back."""
        if ended := _ended_process():
            return (
                f"{self._ray} is lost: {ended}; what was committed is kept: check the free "
                "memory, then run the same command again"
            )
        before, self._silent = self._silent, self._seconds_of_silence()
        if before < NOTICE_S <= self._silent:
            print(f"{self._ray} does not answer: waiting {PATIENCE_S:g} s for it", file=sys.stderr)
        if self._silent < PATIENCE_S:
            return None
        return (
            f"{self._ray} is lost: its head has not answered for {self._silent:.0f} s; what was "
            "committed is kept: check that it runs, then run the same command again"
        )

    def _seconds_of_silence(self) -> float:
        """Ask; time in which this process was stopped (Ctrl-Z) is not the head's silence."""
        answered, since, self._looked = _answers(), self._looked, time.monotonic()
        passed = min(self._looked - since, 2 * (PERIOD_S + REPLY_S))
        return 0.0 if answered else self._silent + passed


def _ended_process() -> str | None:
    """Name a process of our own Ray that has ended, and how."""
    from ray._private import worker

    processes: dict[str, Any] = getattr(worker._global_node, "all_processes", {})
    for kind in ("gcs_server", "raylet"):
        for each in processes.get(kind, ()):
            if (status := each.process.poll()) is not None:
                return f"its process {kind} {_how(status)}"
    return None


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"


def _answers() -> bool:
    from ray._private import worker

    client = getattr(worker.global_worker, "gcs_client", None)
    if client is None:  # ray:// keeps a connection of its own, whose end it raises itself
        return True
    try:
        client.check_alive([], timeout=REPLY_S)
    except Exception:
        return False
    return True


def _end_process(status: int) -> None:
    from ray._private import worker

    with suppress(Exception):
        worker._global_node.kill_all_processes(check_alive=False, allow_graceful=False)  # type: ignore[attr-defined]
    with suppress(Exception):
        sys.stderr.flush()
    os._exit(status)
