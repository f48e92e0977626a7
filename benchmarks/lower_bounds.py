"""Lower bounds of benchmarks: what the disk and the processor reach without this project."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor


def forget(folder: Path) -> None:
    """Drop the files below `folder` from the system's cache, so that the next read is cold."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def raw_write(folder: Path, size: int, file_bytes: int, threads: int) -> float:
    """Time writing `size` bytes by `ndarray.tofile` in files of `file_bytes`, each fsynced."""
    folder.mkdir(parents=True)
    values = np.random.default_rng(0).random(file_bytes // 4, np.float32)

    def write(number: int) -> None:
        """Write file `number` and fsync it."""
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
    """Time reading `size` bytes of the files of `raw_write` by `np.fromfile`, cold."""
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
    """Time the float32 product and the argsort for both voters of every tap, on all cores.

    Each uses the fastest of `PRODUCTS` and `ORDERS`. Measured on `rows` samples and scaled to
    `samples`.
    """
    inputs = [(torch.rand(rows, size), torch.rand(classes, size)) for size in sorted({*channels})]
    seconds = {}
    for left, right in inputs:
        ways = [prepare(right) for prepare in PRODUCTS.values()]
        product = min(_seconds(multiply, left) for multiply in ways for _ in "12")
        scores = left @ right.T
        order = min(_seconds(sort, scores) for sort in ORDERS.values() for _ in "12")
        seconds[left.shape[1]] = product + order
    return 2 * sum(seconds[size] for size in channels) * samples / rows


def _seconds(work: Callable[..., object], *given: object) -> float:
    started = time.perf_counter()
    work(*given)
    return time.perf_counter() - started


def _in_threads(values: Tensor) -> list[object]:
    """Sort the rows of (N, M) by `numpy.argsort` on all cores; unstable, so it may use AVX-512."""
    pieces = np.array_split(values.numpy(), torch.get_num_threads())
    with ThreadPoolExecutor(len(pieces)) as pool:
        return list(pool.map(lambda piece: np.argsort(piece, axis=1), pieces))


def _by_onednn(weights: Tensor) -> Callable[[Tensor], Tensor]:
    packed = weights.to_mkldnn()
    return lambda values: functional.linear(values.to_mkldnn(), packed).to_dense()


PRODUCTS: dict[str, Callable[[Tensor], Callable[[Tensor], Tensor]]] = {
    "torch": lambda weights: lambda values: values @ weights.T,
    "oneDNN": _by_onednn,
}
"""Ways to multiply (N, C) float32 values by given weights (M, C), on all cores; oneDNN only on a
CPU."""

ORDERS: dict[str, Callable[[Tensor], object]] = {
    "torch": lambda values: values.argsort(dim=1),
    "torch, stable": lambda values: values.argsort(dim=1, stable=True),
    "numpy": _in_threads,
}
"""Ways to rank the classes of (N, M) float32 values, on all cores; NumPy only on a CPU."""
