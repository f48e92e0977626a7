"""The result of an attack on a block of samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True)
class AttackResult:
    """One row per sample, in the given order.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1]; where nothing was found: the clean image under
            `minimal`, the last iterate under `budget`.
        claimed: (N,) bool, the kernel's claim; `verify` decides whether it holds.
        target: (N,) int64, the class aimed at, -1 for an untargeted attack.
        epsilon: (N,) float64, radius of the ball the image was found in; NaN: none.
        l2: (N,) float32, measured between `images` and the clean pixels.
        linf: (N,) float32, likewise.
        mse: (N,) float32, likewise.
        steps: (N,) int64, iterations of this sample in all tries.
        queries: (N,) int64, forward passes of this sample (padding not counted), including the one
            that finds it to be correct beforehand.
        backward_passes: (N,) int64.
        gradients: (N,) int64, gradients of a loss with respect to this sample's image, until an
            image of it first met the criterion; see `GradientWatch`.
        zero_gradients: (N,) int64, those among them that were zero everywhere.
        not_finite_gradients: (N,) int64, those with NaN or infinity.
        flags: (N,) int64, remarks of the attack's library, bit by bit
            (`libraries.autoattack_checks.Remark`).
        member: (N,) int64, of an attack made of several the one that succeeded; -1: none, or a
            single attack.
        seconds: (N,) float64, wall time of the batch, divided in proportion to passes.
        failures: row -> one-line reason why the kernel failed: no verdict about the network.
    """

    images: NDArray[np.float32]
    claimed: NDArray[np.bool_]
    target: NDArray[np.int64]
    epsilon: NDArray[np.float64]
    l2: NDArray[np.float32]
    linf: NDArray[np.float32]
    mse: NDArray[np.float32]
    steps: NDArray[np.int64]
    queries: NDArray[np.int64]
    backward_passes: NDArray[np.int64]
    gradients: NDArray[np.int64]
    zero_gradients: NDArray[np.int64]
    not_finite_gradients: NDArray[np.int64]
    flags: NDArray[np.int64]
    member: NDArray[np.int64]
    seconds: NDArray[np.float64]
    failures: Mapping[int, str]


@dataclass(frozen=True)
class Distances:
    """(N,) float32 each, between images and clean pixels of shape (N, C, H, W)."""

    l2: NDArray[np.float32]
    linf: NDArray[np.float32]
    mse: NDArray[np.float32]


def distances(images: NDArray[np.float32], clean: NDArray[np.float32]) -> Distances:
    """Return L2, L-infinity and mean squared differences, computed in float64."""
    difference = (images.astype(np.float64) - clean).reshape(
        len(images), math.prod(images.shape[1:])
    )
    squares = np.square(difference)
    return Distances(
        l2=np.sqrt(squares.sum(axis=1)).astype(np.float32),
        linf=np.abs(difference).max(axis=1).astype(np.float32),
        mse=squares.mean(axis=1).astype(np.float32),
    )
