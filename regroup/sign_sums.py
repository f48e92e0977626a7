"""Sums of positive and negative responses by channel, each response read once.

Torch has no such reduction: clamping and summing twice reads and writes every response several
times, which on a CPU costs as much as the network (docs/performance.md). Compiled by Numba where it
is installed, for float32 on the CPU; `plain_sums` does the same for all else.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from regroup.compiled import compiled
from regroup.threads import in_pieces

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

# Responses that float32 adds up before float64 takes over: rounding stays near 1e-6.
RUN = 128
# Channels whose sums a core's registers and first cache hold.
_CHANNELS = 512
# Responses of a channel in one piece that are added side by side.
_LANES = 32
# Responses that are worth a second thread.
_WORTH_A_THREAD = 2**17


def sign_sums(phi: Tensor, channel_axis: int) -> Tensor:
    """P = sum(max(0, phi)) and N = sum(max(0, -phi)) by sample and channel, (N, 2, C) float32.

    `phi`: (N, ..., C, ...), the channels on `channel_axis`. NaN and infinity reach the sums.
    """
    fits = phi.device.type == "cpu" and phi.dtype == torch.float32 and kernels() is not None
    views = _dense(phi, channel_axis) if fits and phi.numel() else None
    return plain_sums(phi, channel_axis) if views is None else _compiled_sums(*views)


def plain_sums(phi: Tensor, channel_axis: int) -> Tensor:
    """As `sign_sums`, by torch, on any device and of any dtype; sums are float32 at least."""
    axes = [axis for axis in range(1, phi.dim()) if axis != channel_axis]
    dtype = torch.promote_types(phi.dtype, torch.float32)
    positive, negative = phi.clamp(min=0), phi.clamp(max=0)
    if axes:  # torch sums over everything where no axis is named
        positive, negative = (part.sum(axes, dtype=dtype) for part in (positive, negative))
    return torch.stack((positive, negative.abs()), dim=1).to(torch.float32)


def _dense(phi: Tensor, channel_axis: int) -> tuple[bool, NDArray[np.float32]] | None:
    """Whether channels lie side by side, and a view: (N, R, C) where they do, else (N, C, S).

    None where they are neither side by side nor each in one piece.
    """
    last = phi.movedim(channel_axis, -1)
    if last.is_contiguous():
        return True, last.reshape(phi.shape[0], -1, last.shape[-1]).numpy()
    first = phi.movedim(channel_axis, 1)
    if first.is_contiguous():
        return False, first.reshape(*first.shape[:2], -1).numpy()
    return None


def _compiled_sums(side_by_side: bool, values: NDArray[np.float32]) -> Tensor:
    by_rows, by_planes = kernels() or (None, None)
    if not side_by_side:
        return torch.from_numpy(_run(by_planes, values, values.shape[1]))
    samples, rows, channels = values.shape
    # Few channels would leave a core's lanes idle: several rows are added side by side.
    together = math.gcd(rows, max(1, _CHANNELS // channels))
    wide = values.reshape(samples, rows // together, together * channels)
    sums = _run(by_rows, wide, together * channels).reshape(samples, 2, together, channels)
    return torch.from_numpy(sums.sum(axis=2) if together > 1 else sums[:, :, 0])


def _run(kernel: Any, values: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """The sums (N, 2, channels) of a kernel; what is added in which order is the same always."""
    samples, sums = len(values), np.empty((len(values), 2, channels), np.float32)
    worth = values.size / _WORTH_A_THREAD
    if samples >= torch.get_num_threads():
        in_pieces(lambda first, end: kernel(values, sums, first, end, 0, channels), samples, worth)
    else:
        in_pieces(lambda first, end: kernel(values, sums, 0, samples, first, end), channels, worth)
    return sums


@cache
def kernels() -> tuple[Callable[..., None], ...] | None:
    """The compiled (N, R, C) and (N, C, S) kernels; None where Numba is not installed.

    Each takes the values, the sums to fill, and the first and end of its samples and channels.
    """
    return compiled(_by_rows, _by_planes)


def _by_rows(
    values: NDArray[np.float32],
    sums: NDArray[np.float32],
    first: int,
    end: int,
    first_channel: int,
    end_channel: int,
) -> None:
    """Channels side by side, (N, R, C): many channels at a time, row after row."""
    positive = np.empty(_CHANNELS, np.float32)
    negative = np.empty(_CHANNELS, np.float32)
    totals = np.empty((2, _CHANNELS), np.float64)
    zero = np.float32(0)
    for sample in range(first, end):
        for start in range(first_channel, end_channel, _CHANNELS):
            width = min(_CHANNELS, end_channel - start)
            totals[:] = 0
            for run in range(0, values.shape[1], RUN):
                positive[:] = 0
                negative[:] = 0
                for row in range(run, min(run + RUN, values.shape[1])):
                    line = values[sample, row, start : start + width]
                    for c in range(width):
                        value = line[c]
                        # So that NaN goes to both.
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
    """Each channel in one piece, (N, C, S): one channel after the other."""
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
