"""What a benchmark runs on, and the peak memory of what it runs."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from pathlib import Path

import torch

from cluster.machine import machine
from cluster.phases import peak_rss_bytes

__all__ = ["forget_peak", "machine", "peak_bytes", "wait_for"]


def wait_for(device: str) -> None:
    """Return when the device has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def forget_peak(device: str = "cpu") -> None:
    """Start the peak memory anew: the GPU's, or this process's where Linux lets it.

    What the process has freed goes back to the system before, where the C library can do that.
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
    """The peak memory since `forget_peak`: allocated on the GPU, or held by this process."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    return peak_rss_bytes()
