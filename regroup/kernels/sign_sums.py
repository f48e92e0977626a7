"""Sums of positive and negative responses per channel, each response read once.

Torch has no such reduction: clamping and summing twice reads and writes every response several
times, which on a CPU costs as much as the network (docs/performance.md). Compiled by Numba, if
installed, for float32 on the CPU; `plain_sums` does the same for everything else.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from regroup.kernels.threads import team

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# From this many responses on, more than one thread pays off.
_WORTH_THREADS = 2**15


def sign_sums(phi: Tensor, channel_axis: int) -> Tensor:
    """Return P = sum(max(0, phi)), N = sum(max(0, -phi)) by sample and channel, (N, 2, C) float32.

    NaN and infinity reach the sums.

    Args:
        phi: (N, ..., C, ...).
        channel_axis: the axis of the channels.
    """
    fits = (
        phi.device.type == "cpu"
        and phi.dtype == torch.float32
        and compiled_sign_kernels() is not None
    )
    views = _dense(phi, channel_axis) if fits and phi.numel() else None
    return plain_sums(phi, channel_axis) if views is None else _compiled_sums(*views)


def differentiable_sign_sums(phi: Tensor, channel_axis: int) -> Tensor:
    """Compute `sign_sums`, with a gradient if `phi` has one; the same bits either way."""
    if not (phi.requires_grad and torch.is_grad_enabled()):
        return sign_sums(phi.detach(), channel_axis)
    sums: Tensor = _SignSums.apply(phi, channel_axis)
    return sums


class _SignSums(torch.autograd.Function):
    """`sign_sums` and its derivative: P rises with positive responses, N falls with negative ones.

    Keeps signs in place of responses: a quarter of the memory, and activations may overwrite their
    input. At zero both derivatives are zero, as torch's ReLU has it.
    """

    @staticmethod
    def forward(ctx: Any, phi: Tensor, channel_axis: int) -> Tensor:
        """Return (N, 2, C) float32 of (N, ..., C, ...)."""
        ctx.save_for_backward(phi.sign().to(torch.int8))
        ctx.channel_axis, ctx.dtype = channel_axis, phi.dtype
        return sign_sums(phi.detach(), channel_axis)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of phi from that of the sums, (N, 2, C)."""
        (signs,) = ctx.saved_tensors
        shape = [1] * signs.dim()
        shape[0], shape[ctx.channel_axis] = signs.shape[0], signs.shape[ctx.channel_axis]
        positive, negative = (each.reshape(shape) for each in gradients[0].unbind(1))
        found = torch.where(signs > 0, positive, torch.where(signs < 0, -negative, 0))
        return found.to(ctx.dtype), None


def plain_sums(phi: Tensor, channel_axis: int) -> Tensor:
    """Compute `sign_sums` by torch, on any device and of any dtype; sums are float32 at least."""
    axes = [axis for axis in range(1, phi.dim()) if axis != channel_axis]
    dtype = torch.promote_types(phi.dtype, torch.float32)
    positive, negative = phi.clamp(min=0), phi.clamp(max=0)
    if axes:  # torch sums over everything if no axis is named
        positive, negative = (part.sum(axes, dtype=dtype) for part in (positive, negative))
    return torch.stack((positive, negative.abs()), dim=1).to(torch.float32)


def _dense(phi: Tensor, channel_axis: int) -> tuple[bool, NDArray[np.float32]] | None:
    """Return whether channels are adjacent, and a view: (N, R, C) if they are, else (N, C, S).

    None if channels are neither adjacent nor each contiguous.
    """
    last = phi.movedim(channel_axis, -1)
    if last.is_contiguous():
        return True, last.reshape(phi.shape[0], -1, last.shape[-1]).numpy()
    first = phi.movedim(channel_axis, 1)
    if first.is_contiguous():
        return False, first.reshape(*first.shape[:2], -1).numpy()
    return None


def _compiled_sums(side_by_side: bool, values: NDArray[np.float32]) -> Tensor:
    if not side_by_side:
        return torch.from_numpy(_run("by_planes", values, values.shape[1]))
    samples, rows, channels = values.shape
    # Few channels would leave a core's lanes idle: several rows are added side by side.
    together = math.gcd(rows, max(1, compiled_sign_kernels().CHANNELS // channels))
    wide = values.reshape(samples, rows // together, together * channels)
    sums = _run("by_rows", wide, together * channels).reshape(samples, 2, together, channels)
    return torch.from_numpy(sums.sum(axis=2) if together > 1 else sums[:, :, 0])


def _run(name: str, values: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """Return the sums (N, 2, channels) of a kernel; the order of additions is always the same."""
    sums = np.empty((len(values), 2, channels), np.float32)
    threads = team() if values.size >= _WORTH_THREADS and torch.get_num_threads() > 1 else None
    if threads is None:
        getattr(compiled_sign_kernels(), name)(values, sums, 0, len(values), 0, channels)
    else:
        shape = np.array(values.shape, np.int64)
        data = np.array([each.ctypes.data for each in (values, sums, shape)], np.uintp)
        threads.run(compiled_sign_kernels().regions(threads)[name].address, data.ctypes.data)
    return sums


@cache
def compiled_sign_kernels() -> Any:
    """Return the module `regroup.kernels.sign_kernels`; None if Numba is not installed."""
    try:
        from regroup.kernels import sign_kernels
    except ImportError:
        return None
    return sign_kernels
