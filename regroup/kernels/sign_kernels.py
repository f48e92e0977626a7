"""The compiled loops of `kernels.sign_sums`, for one thread and for all of torch's. Needs Numba."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import binding
from numba import cfunc, types
from numba.np.numpy_support import carray

from regroup.kernels.compilation import compile_with_numba

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from regroup.kernels.threads import Team

# Responses summed in float32 before float64 takes over: rounding stays near 1e-6.
RUN = 128
# Channels whose sums a core's registers and first cache hold.
CHANNELS = 512
# Responses of a contiguous channel that are added side by side.
_LANES = 32


def _by_rows(
    values: NDArray[np.float32],
    sums: NDArray[np.float32],
    first: int,
    end: int,
    first_channel: int,
    end_channel: int,
) -> None:
    """Sum channels side by side, (N, R, C): many channels at a time, row after row."""
    positive = np.empty(CHANNELS, np.float32)
    negative = np.empty(CHANNELS, np.float32)
    totals = np.empty((2, CHANNELS), np.float64)
    zero = np.float32(0)
    for sample in range(first, end):
        for start in range(first_channel, end_channel, CHANNELS):
            width = min(CHANNELS, end_channel - start)
            totals[:] = 0
            for run in range(0, values.shape[1], RUN):
                positive[:] = 0
                negative[:] = 0
                for row in range(run, min(run + RUN, values.shape[1])):
                    line = values[sample, row, start : start + width]
                    for c in range(width):
                        value = line[c]
                        # Written so that NaN reaches both sums.
                        positive[c] += zero if value < 0 else value
                        negative[c] -= zero if value > 0 else value
                for c in range(width):
                    totals[0, c] += positive[c]
                    totals[1, c] += negative[c]
            for c in range(width):
                sums[sample, 0, start + c] = totals[0, c]
                sums[sample, 1, start + c] = totals[1, c]


def _by_planes(
    values: NDArray[np.float32],
    sums: NDArray[np.float32],
    first: int,
    end: int,
    first_channel: int,
    end_channel: int,
) -> None:
    """Sum channels that are each contiguous, (N, C, S): one channel after the other."""
    positive = np.empty(_LANES, np.float32)
    negative = np.empty(_LANES, np.float32)
    zero = np.float32(0)
    whole = values.shape[2] // _LANES
    for sample in range(first, end):
        for channel in range(first_channel, end_channel):
            plane = values[sample, channel]
            total_positive, total_negative = 0.0, 0.0
            for run in range(0, whole, RUN):
                positive[:] = 0
                negative[:] = 0
                for row in range(run, min(run + RUN, whole)):
                    line = plane[row * _LANES : (row + 1) * _LANES]
                    for lane in range(_LANES):
                        value = line[lane]
                        positive[lane] += zero if value < 0 else value
                        negative[lane] -= zero if value > 0 else value
                for lane in range(_LANES):
                    total_positive += positive[lane]
                    total_negative += negative[lane]
            for value in plane[whole * _LANES :]:
                total_positive += float(zero if value < 0 else value)
                total_negative -= float(zero if value > 0 else value)
            sums[sample, 0, channel] = total_positive
            sums[sample, 1, channel] = total_negative


_thread_number: Any = types.ExternalFunction("regroup_thread_number", types.int32())
_team_size: Any = types.ExternalFunction("regroup_team_size", types.int32())


def _part(samples: int, channels: int) -> tuple[int, int, int, int]:
    """Return first and end of the samples and of the channels of the calling thread."""
    number, size = _thread_number(), _team_size()
    if samples >= size:
        return samples * number // size, samples * (number + 1) // size, 0, channels
    return 0, samples, channels * number // size, channels * (number + 1) // size


# The loops take the values, the sums to fill, and the first and end of their samples and channels.
_functions: Any = compile_with_numba(_by_rows, _by_planes, _part)
by_rows, by_planes, _my_part = _functions


def _rows_region(data: Any) -> None:
    shape = carray(data[2], (3,), np.int64)
    samples, rows, channels = shape[0], shape[1], shape[2]
    values = carray(data[0], (samples, rows, channels), np.float32)
    sums = carray(data[1], (samples, 2, channels), np.float32)
    by_rows(values, sums, *_my_part(samples, channels))


def _planes_region(data: Any) -> None:
    shape = carray(data[2], (3,), np.int64)
    samples, channels, side = shape[0], shape[1], shape[2]
    values = carray(data[0], (samples, channels, side), np.float32)
    sums = carray(data[1], (samples, 2, channels), np.float32)
    by_planes(values, sums, *_my_part(samples, channels))


@cache
def regions(team: Team) -> dict[str, Any]:
    """Return `by_rows` and `by_planes` as regions, one part per thread, for `Team.run`.

    The `address` of a region is its code. Its data are three addresses: of the values, of the sums
    to fill, and of the values' shape, int64. Cached, since the code is freed with its object.
    """
    for name, function in (("thread_number", team.number), ("team_size", team.size)):
        address = ctypes.cast(function, ctypes.c_void_p).value
        binding.add_symbol(f"regroup_{name}", address)
    return {"by_rows": _region(_rows_region), "by_planes": _region(_planes_region)}


def _region(function: Any) -> Any:
    pointer: Any = types.CPointer
    signature = types.void(pointer(types.voidptr))
    try:
        return cfunc(signature, cache=True)(function)
    except RuntimeError:  # no cache folder
        return cfunc(signature)(function)
