"""What a benchmark runs on, and the peak memory of what it runs."""

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
    """Torch with so many threads; each of the workers of `regroup` has one on a CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
