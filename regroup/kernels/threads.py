"""Parallel work on the threads that torch itself uses.

Additional threads would compete with torch's, which wait busily between its operations: once
displaced, they have to be woken for the next one, which costs a network on two cores more than its
sums by sign (docs/performance.md).
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

# A region's code: it receives the address passed with it.
_Region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Team:
    """The threads of the OpenMP library that torch is linked with.

    GNU's library and, with the same names, LLVM's and Intel's on Linux.

    Raises:
        AttributeError: the library has no such functions.
        OSError: torch's library cannot be opened.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        self._parallel = library.GOMP_parallel
        self._parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._parallel.restype = None
        self.number: Any = library.omp_get_thread_num
        self.size: Any = library.omp_get_num_threads

    def run(self, region: int, data: int) -> None:
        """Have all threads of the team, including this one, call the code at address `region`.

        It receives the address `data`, and calls `number` and `size` for its index and the number
        of threads. The GIL is released meanwhile.
        """
        self._parallel(region, data, torch.get_num_threads(), 0)


@cache
def team() -> Team | None:
    """Return the threads of torch; None if its OpenMP library is unknown."""
    try:
        return Team()
    except (AttributeError, OSError):
        return None


def run_in_parallel(work: Callable[[int, int], None], length: int, worth: float) -> None:
    """Call `work(first, end)` for consecutive parts of 0 to `length`, one per thread.

    Exceptions of `work` are raised here.

    Args:
        work: processes one part.
        length: how much there is to process.
        worth: how many threads the work is worth; below one, or if torch has one thread, it runs in
            a single call.
    """
    threads = team()
    if threads is None or min(torch.get_num_threads(), length) < 2 or worth < 1:
        work(0, length)
        return
    raised: list[BaseException] = []

    def region(_: object) -> None:
        """Process the part of the calling thread."""
        try:
            number, size = threads.number(), threads.size()
            work(length * number // size, length * (number + 1) // size)
        except BaseException as error:  # it cannot propagate through the library
            raised.append(error)

    code = _Region(region)
    threads.run(ctypes.cast(code, ctypes.c_void_p).value or 0, 0)
    if raised:
        raise raised[0]
