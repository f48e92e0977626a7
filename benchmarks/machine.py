"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import torch


def machine(device: str) -> dict[str, object]:
    """What it runs on; the load is that of the minute before."""
    description: dict[str, object] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": device,
    }
    if device.startswith("cuda"):
        description["gpu"] = torch.cuda.get_device_name(device)
    return description


def _processor() -> str:
    """The name that Linux has for it, else the architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
