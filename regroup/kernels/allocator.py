"""The memory that a process frees: kept for its next tensors instead of given back.

glibc gives a large tensor back to the system as soon as it is freed, and the system hands out and
clears the pages of the next one anew, for every layer of every batch: a tenth to a fifth of a
network's time on a CPU (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import cache

KEPT_BYTES = 2**31 - 1
# Names of mallopt's parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


@cache
def keep_freed_memory() -> bool:
    """Have this process keep up to 2 GiB of freed memory at the end of its heap; whether it does.

    The first call decides. For processes of one's own, such as workers. Nothing is changed where
    another C library is used or where variables of the environment (MALLOC_..., GLIBC_TUNABLES) set
    malloc already.
    """
    if _set_by_user():
        return False
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Without maps of its own, a large tensor comes from the heap, which stays this process's.
        return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)) and bool(mallopt(_M_MMAP_MAX, 0))
    return False


def _set_by_user() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return "glibc.malloc" in tunables or any(name.startswith("MALLOC_") for name in os.environ)
