"""The machine that a benchmark runs on, and the peak memory of its runs."""

from __future__ import annotations

import ctypes
import gc
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from regroup_cluster.dispatch.stopwatch import peak_rss_bytes
from regroup_cluster.machine import machine

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["forget_peak", "machine", "peak_bytes", "torch_threads", "wait_for"]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run torch with `count` threads; a worker of `regroup` on a CPU has one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def wait_for(device: str) -> None:
    """Wait until the device has finished all submitted work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def forget_peak(device: str = "cpu") -> None:
    """Reset the peak memory: the GPU's, or this process's where Linux allows it.

    Memory that the process has freed is returned to the system first, if the C library can do that.
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: str = "cpu") -> int:
    """Return the peak memory since `forget_peak`: allocated on the GPU, or held by this process."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    return peak_rss_bytes()
