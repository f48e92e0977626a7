"""Pieces of work for functions that let go of Python's lock, on as many threads as torch uses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    Piece = tuple[int, int]


def in_pieces(work: Callable[[int, int], None], length: int, worth: float) -> None:
    """Call `work(first, end)` for consecutive parts of 0 to `length`, a thread each.

    `worth`: how many threads the work is worth, rounded up; torch's number is the most.
    """
    threads = max(1, min(torch.get_num_threads(), length, 1 + int(worth)))
    ends = [length * part // threads for part in range(threads + 1)]
    if threads == 1:
        work(0, length)
    else:
        list(_pool(threads).map(work, ends[:-1], ends[1:]))


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    """Threads that wait for work: to start them each time would cost more than they save."""
    return ThreadPoolExecutor(count, thread_name_prefix="regroup")
