"""The count of forward passes in this process, on which every statement about cost rests.

Importing this module does not import torch: workers that run no network count as well.
"""

from __future__ import annotations

import threading

_lock = threading.Lock()
_forward_samples = 0


def forward_samples() -> int:
    """Return how many samples any Classifier of this process has seen so far."""
    return _forward_samples


def count_forward_pass(samples: int) -> None:
    """Count one forward pass over `samples` samples."""
    global _forward_samples
    with _lock:
        _forward_samples += samples
