"""Conversion of sRGB to CIE L*a*b* (D65, 2 degrees) and back, differentiable everywhere.

Definitions: IEC 61966-2-1 (sRGB: its transfer curve and, to seven digits, its matrix to XYZ) and
CIE 15 (L*a*b* of XYZ). All arithmetic is in the dtype of the input.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Rows X, Y, Z of linear R, G, B. The rows' sums are the white, so that grey has a* = b* = 0.
_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = _TO_XYZ.sum(axis=1)
# sRGB: linear below this value; CIE: the cube root's straight line below (6 / 29) ** 3.
_SRGB_KNEE, _LINEAR_KNEE = 0.04045, 0.0031308
_DELTA = 6 / 29


def rgb_to_lab(pixels: Tensor) -> Tensor:
    """Convert sRGB (N, 3, H, W) in [0, 1] to L* in 0 .. 100, a* and b* in about -108 .. 99."""
    relative = _apply(_TO_XYZ / _WHITE[:, None], _linear(pixels))
    x, y, z = _cube_root(relative).unbind(dim=1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Convert L*a*b* (N, 3, H, W) to sRGB (N, 3, H, W).

    Colours outside of sRGB are below 0 or above 1: clamping them is left to the caller.
    """
    lightness, a, b = lab.unbind(dim=1)
    y = (lightness + 16) / 116
    relative = _cube(torch.stack((y + a / 500, y, y - b / 200), dim=1))
    return _curve(_apply(np.linalg.inv(_TO_XYZ) * _WHITE, relative))


def _apply(matrix: np.ndarray, colours: Tensor) -> Tensor:
    weights = torch.as_tensor(matrix, dtype=colours.dtype, device=colours.device)
    return torch.einsum("ij,njhw->nihw", weights, colours)


# In each of these the branch not taken is kept away from where its slope is unbounded:
# infinity times the zero of `where` would make the gradient NaN.


def _linear(pixels: Tensor) -> Tensor:
    power = ((pixels.clamp(min=_SRGB_KNEE) + 0.055) / 1.055) ** 2.4
    return torch.where(pixels > _SRGB_KNEE, power, pixels / 12.92)


def _curve(linear: Tensor) -> Tensor:
    power = 1.055 * linear.clamp(min=_LINEAR_KNEE) ** (1 / 2.4) - 0.055
    return torch.where(linear > _LINEAR_KNEE, power, 12.92 * linear)


def _cube_root(relative: Tensor) -> Tensor:
    root = relative.clamp(min=_DELTA**3) ** (1 / 3)
    return torch.where(relative > _DELTA**3, root, relative / (3 * _DELTA**2) + 4 / 29)


def _cube(root: Tensor) -> Tensor:
    return torch.where(root > _DELTA, root**3, 3 * _DELTA**2 * (root - 4 / 29))
