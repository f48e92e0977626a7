"""Have the process keep freed memory for its next tensors instead of returning it to the system.

glibc returns a large tensor to the system as soon as it is freed, and the system maps and clears
new pages for the next one, for every layer of every batch: a tenth to a fifth of a network's time
on a CPU (docs/performance.md).
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
    """Keep up to 2 GiB of freed memory at the end of this process's heap; return whether it does.

    The first call decides. Meant for processes that are entirely ours, such as workers. Nothing is
    changed with another C library, or if environment variables (MALLOC_..., GLIBC_TUNABLES) already
    configure malloc.
    """
    if _set_by_user():
        return False
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Without its own mmap, a large tensor comes from the heap, which the process keeps.
        return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)) and bool(mallopt(_M_MMAP_MAX, 0))
    return False


def _set_by_user() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return "glibc.malloc" in tunables or any(name.startswith("MALLOC_") for name in os.environ)
