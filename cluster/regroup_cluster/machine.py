"""The machine that a measurement ran on, reported beside its numbers."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping


def machine(device: str) -> dict[str, object]:
    """Return a description of this machine, plain JSON; `load` is the last minute's average."""
    description: dict[str, object] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device,
    }
    if device.startswith("cuda"):
        description["gpu"] = torch.cuda.get_device_name(device)
    return description


def in_words(machine: Mapping[str, object]) -> str:
    """Return a description in words, such as `AMD EPYC 7763, 1 thread of 2 cores, torch 2.9.0`."""
    threads = f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}"
    processor = f"{machine['processor']}, {threads} of {machine['cores']} cores"
    device = f"{machine['gpu']}, beside {processor}" if "gpu" in machine else processor
    return f"{device}, torch {machine['torch']}"


def _processor() -> str:
    """Return the processor's name as Linux has it, else the architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
