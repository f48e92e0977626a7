"""A clock of the driver that jumps ahead when a test says so: deadlines pass without waiting.

A deadline short enough to wait for is one that a busy machine misses with blocks that do not hang.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

JUMP_S = 10_000.0


def jump_when(patch: pytest.MonkeyPatch, jumps: Callable[[], int]) -> None:
    """Have the clock of the dispatch stand `JUMP_S` later for each of the `jumps` so far."""
    most = 0

    def monotonic() -> float:
        nonlocal most
        most = max(most, jumps())
        return time.monotonic() + JUMP_S * most

    clock = SimpleNamespace(monotonic=monotonic, sleep=time.sleep)
    patch.setattr("regroup_cluster.dispatch.scheduler.time", clock)
