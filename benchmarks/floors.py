"""What the disk and the processor give without a store: the floors of benchmarks/v50k.py."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def forget(folder: Path) -> None:
    """Have the system drop the files below `folder` from its cache: the next read is cold."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def raw_write(folder: Path, size: int, file_bytes: int, threads: int) -> float:
    """Seconds to write `size` bytes by `ndarray.tofile` in files of `file_bytes`, each fsynced."""
    folder.mkdir(parents=True)
    values = np.random.default_rng(0).random(file_bytes // 4, np.float32)

    def write(number: int) -> None:
        """Write file `number`, durably."""
        with (folder / f"{number:05d}").open("wb") as file:
            values.tofile(file)
            file.flush()
            os.fsync(file.fileno())

    files = range(-(-size // file_bytes))
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, files))
    return (time.perf_counter() - started) * size / (len(files) * file_bytes)


def raw_read(folder: Path, size: int, threads: int) -> float:
    """Seconds to read `size` bytes of what `raw_write` left, by `np.fromfile`, cold."""
    forget(folder)
    files = sorted(folder.iterdir())
    there = sum(path.stat().st_size for path in files)
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(_read, files):
            pass
    return (time.perf_counter() - started) * size / there


def _read(path: Path) -> int:
    return len(np.fromfile(path, np.float32))


def bare_scoring(channels: Sequence[int], classes: int, samples: int, rows: int) -> float:
    """Seconds of the float32 product and the argsort of both voters of every tap, on all cores.

    The argsort is torch's or NumPy's, whichever is faster here. Measured on `rows` samples and
    multiplied up to `samples`.
    """
    inputs = [(torch.rand(rows, size), torch.rand(size, classes)) for size in sorted({*channels})]
    seconds = {}
    for left, right in inputs:
        product = min(_seconds(lambda: left @ right) for _ in range(2))  # noqa: B023
        scores = left @ right
        order = min(_seconds(sort, scores) for sort in (torch_order, numpy_order) for _ in "12")
        seconds[left.shape[1]] = product + order
    return 2 * sum(seconds[size] for size in channels) * samples / rows


def _seconds(work: Callable[..., object], *given: object) -> float:
    started = time.perf_counter()
    work(*given)
    return time.perf_counter() - started


def torch_order(scores: torch.Tensor) -> torch.Tensor:
    """torch's argsort of every row, (N, M)."""
    return scores.argsort(dim=1)


def numpy_order(scores: torch.Tensor) -> None:
    """NumPy's argsort of every row, the rows spread over as many threads as torch uses."""
    rows = np.array_split(scores.numpy(), torch.get_num_threads())
    with ThreadPoolExecutor(len(rows)) as pool:
        list(pool.map(lambda part: np.argsort(part, axis=1), rows))
