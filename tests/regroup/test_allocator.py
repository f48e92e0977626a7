"""Freed memory is kept: the next tensor needs no pages of the system."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from regroup.kernels.allocator import keep_freed_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")

FAULTS = """
import resource, sys
import numpy as np
from regroup.kernels.allocator import keep_freed_memory

if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit("another C library than glibc")

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

np.ones(2**24)  # 128 MiB: 2**15 pages, written and freed
before = faults()
for _ in range(4):
    np.ones(2**24)
print(faults() - before)
"""


def faults(how: str) -> int:
    """Page faults of four large arrays, in a separate process."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    own.pop("GLIBC_TUNABLES", None)
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], env=own, capture_output=True, text=True
    )
    if "another C library" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_large_arrays_come_from_the_memory_of_the_last_ones() -> None:
    assert faults("kept") < 100


@pytest.mark.parametrize(
    ("name", "text"),
    [("MALLOC_TRIM_THRESHOLD_", "1000"), ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")],
)
def test_settings_of_the_user_stay(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, text)
    assert not keep_freed_memory.__wrapped__()
