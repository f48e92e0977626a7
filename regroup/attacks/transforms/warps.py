"""Rotations and translations of images, as Foolbox 2.3 and as Foolbox 3 make them.

Reimplemented, since neither can be called for this: Foolbox 2 warps one image at a time on the CPU
(0.1 s for one of 224 x 224, a thousand times for each sample), and Foolbox 3 computes its sampling
grid by a float32 matrix product, which is off by 3e-6 at the identity and by far more where TF32 is
on. Here coordinates are float64, the identity returns the same bits, and the result for an image
depends on no other image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

Library = Literal["foolbox2", "foolbox3"]


@dataclass(frozen=True)
class Transform:
    """A translation and a rotation, with the signs and axes that the library gives them.

    Attributes:
        x: foolbox2: pixels that the content moves down the rows. foolbox3: left, by (n - 1) / n
            pixels each of an n x n image.
        y: foolbox2: pixels that the content moves along the columns. foolbox3: up, as x.
        degrees: positive turns the content counter-clockwise, with either.
    """

    x: float
    y: float
    degrees: float


def warp(library: Library, images: Tensor, transform: Transform) -> Tensor:
    """Map (N, C, H, W) float32 in [0, 1] to the same shape and range; black where nothing was.

    Raises:
        ConfigurationError: the library itself cannot do it.
    """
    return _WARPS[library](images, transform)


def _foolbox2(images: Tensor, transform: Transform) -> Tensor:
    """Apply SciPy's `rotate` (bilinear, onto a larger canvas), its `shift` (cubic), then a crop.

    A canvas larger by an odd number of pixels is cropped half a pixel off the middle, as there.
    """
    height, width = images.shape[2:]
    rows, columns = canvas = _canvas(height, width, transform.degrees)
    if rows < height or columns < width:
        raise ConfigurationError(
            f"a rotation by {transform.degrees:g} degrees leaves {rows} x {columns} pixels of "
            f"{height} x {width}: the foolbox2 transform cannot cut the image out of it"
        )
    y, x = _turned(canvas, (height, width), transform.degrees, images)
    # scipy fills with zeros beyond the outermost pixel centres, without fading into them.
    inside = (y >= 0) & (y <= height - 1) & (x >= 0) & (x <= width - 1)
    rotated = _sample(images, y, x, inside)
    down = _shift_matrix(rows, height, transform.x)
    along = _shift_matrix(columns, width, transform.y)
    return _between(torch.from_numpy(down), rotated, torch.from_numpy(along)).clamp(0, 1)


def _foolbox3(images: Tensor, transform: Transform) -> Tensor:
    """Apply PyTorch's `grid_sample`: bilinear, aligned corners, fading to zero within a pixel."""
    height, width = shape = (images.shape[2], images.shape[3])
    y, x = _turned(shape, shape, transform.degrees, images, aspect=(width - 1) / (height - 1))
    # Foolbox divides x by the height and y by the width, whose halves are not half the corners'
    # distance: the shift is a little smaller than requested.
    x = x + transform.x * (width - 1) / height
    y = y + transform.y * (height - 1) / width
    return _sample(images, y, x, torch.ones_like(x, dtype=torch.bool)).clamp(0, 1)


_WARPS: dict[Library, Callable[[Tensor, Transform], Tensor]] = {
    "foolbox2": _foolbox2,
    "foolbox3": _foolbox3,
}


def _canvas(height: int, width: int, degrees: float) -> tuple[int, int]:
    """Return the upright box around the rotated image, rounded to whole pixels as scipy does."""
    cosine, sine = _circle(degrees)
    rows = abs(cosine) * height + abs(sine) * width
    columns = abs(sine) * height + abs(cosine) * width
    return int(rows + 0.5), int(columns + 0.5)


def _circle(degrees: float) -> tuple[float, float]:
    """Return cosine and sine."""
    radians = degrees * math.pi / 180
    return math.cos(radians), math.sin(radians)


def _turned(
    to: tuple[int, int],
    source: tuple[int, int],
    degrees: float,
    like: Tensor,
    aspect: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return where each pixel of shape `to` samples shape `source`: rows, columns, float64.

    Args:
        to: shape of the result.
        source: shape of the image.
        degrees: rotation, about both centres.
        like: a tensor on the device to use.
        aspect: Foolbox 3's stretch when it turns an image that is not square; 1 keeps its shape.
    """
    cosine, sine = _circle(degrees)
    height, width = to
    i = torch.arange(height, dtype=torch.float64, device=like.device)[:, None] - (height - 1) / 2
    j = torch.arange(width, dtype=torch.float64, device=like.device)[None] - (width - 1) / 2
    y = cosine * i + sine * j / aspect + (source[0] - 1) / 2
    x = cosine * j - sine * i * aspect + (source[1] - 1) / 2
    return y, x


def _sample(images: Tensor, y: Tensor, x: Tensor, inside: Tensor) -> Tensor:
    """Sample (N, C, H, W) bilinearly at y, x (h, w), to (N, C, h, w); zero outside of `inside`.

    Pixels beyond the border count as zero. Sums are written out: the order of the four terms is
    then the same for any number of images.
    """
    top, left = y.floor(), x.floor()
    low, right = y - top, x - left
    corners = [
        (top, left, (1 - low) * (1 - right)),
        (top, left + 1, (1 - low) * right),
        (top + 1, left, low * (1 - right)),
        (top + 1, left + 1, low * right),
    ]
    total = images.new_zeros((*images.shape[:2], *y.shape))
    for row, column, weight in corners:
        total = total + _corner(images, row, column, weight * inside)
    return total


def _corner(images: Tensor, row: Tensor, column: Tensor, weight: Tensor) -> Tensor:
    """Return `weight` times the pixels at whole rows and columns, zero outside of the image."""
    height, width = images.shape[2:]
    exists = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    pixels = images.flatten(2).index_select(2, place.long().flatten())
    return pixels.view(*images.shape[:2], *place.shape) * (weight * exists).to(images.dtype)


@lru_cache(maxsize=128)
def _shift_matrix(size: int, kept: int, pixels: float) -> NDArray[np.float64]:
    """Return SciPy's cubic `shift` along one axis as a matrix (kept, size), cropped to the middle.

    The shift is linear in the image, and the same along every row: this is its effect on each unit
    vector.
    """
    from scipy.ndimage import shift

    if pixels == 0:
        moved = np.eye(size)  # the spline goes through the pixels, but for the last bits
    else:
        moved = shift(np.eye(size), (pixels, 0), order=3, mode="constant")
    start = (size - kept) // 2
    return np.ascontiguousarray(moved[start : start + kept])


def _between(down: Tensor, images: Tensor, along: Tensor) -> Tensor:
    """Return down @ image @ along.T for each image; float64, since TF32 has ten bits of mantissa.

    One image at a time: a product over the batch may round differently with its size.
    """
    left, right = (matrix.to(images.device) for matrix in (down, along))
    return torch.stack([(left @ image @ right.T).to(images.dtype) for image in images.double()])
