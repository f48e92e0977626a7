"""Which process a run is, so that a later command on the same machine knows whether it lives."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROC = Path("/proc")


def this_process() -> dict[str, object] | None:
    """Describe this process: its pid, its start, and which table of processes both are of.

    None where the system does not say (no Linux).
    """
    pid, table = os.getpid(), _process_table()
    started = _started(pid)
    return {"pid": pid, "started": started, "table": table} if table and started else None


def is_gone(process: object) -> bool:
    """Return whether a process, as described by `this_process` in its time, has certainly ended.

    One of another machine, of another container or of the time before a restart is not known here.
    """
    described: Mapping[str, object] = process if isinstance(process, dict) else {}
    pid, table = described.get("pid"), _process_table()
    if not isinstance(pid, int) or table is None or described.get("table") != table:
        return False
    return _started(pid) != described.get("started")


def _process_table() -> str | None:
    """Name the running kernel and the namespace of the process ids."""
    with suppress(OSError):
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    return None


def _started(pid: int) -> int | None:
    """Return when a living process started, in clock ticks since the machine did; None: dead."""
    with suppress(OSError, ValueError):
        # After the name, which may hold anything: state, parent, ...; the start is the 22nd of all.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None
