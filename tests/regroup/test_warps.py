"""Rotations and shifts: scipy (what Foolbox 2 calls), Foolbox 3 and hand computation as oracles."""

import warnings

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from regroup.attacks.transforms.warps import Library, Transform, warp
from regroup.errors import ConfigurationError

LIBRARIES: list[Library] = ["foolbox2", "foolbox3"]


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("shape", [(2, 3, 9, 9), (2, 1, 8, 11)])
def test_the_identity_gives_back_the_clean_image_exactly(
    library: Library, shape: tuple[int, ...]
) -> None:
    images = noise(*shape)
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 0, 1
    assert torch.equal(warp(library, images, Transform(0, 0, 0)), images)


def scipys(image: NDArray[np.float32], move: Transform) -> NDArray[np.float32]:
    """Foolbox 2.3: rotate onto a larger canvas, shift by a cubic spline, crop the middle, clip."""
    turned = ndimage.rotate(image, move.degrees, axes=(1, 2), reshape=True, order=1)
    moved = ndimage.shift(turned, (0, move.x, move.y), mode="constant")
    top, left = ((a - b) // 2 for a, b in zip(moved.shape[1:], image.shape[1:], strict=True))
    cropped: NDArray[np.float32] = moved[
        :, top : top + image.shape[1], left : left + image.shape[2]
    ].clip(0, 1)
    return cropped


MOVES = [
    Transform(0, 0, 4),
    Transform(2, -1, 0),
    Transform(-1.3, 0.4, 0),
    Transform(5, -35 / 9, -5),
    Transform(-0.5, 2.5, 20),
    Transform(0, 3, 45),
]


@pytest.mark.parametrize("move", MOVES, ids=str)
@pytest.mark.parametrize("shape", [(3, 12, 12), (3, 13, 13), (1, 11, 14)], ids=str)
def test_foolbox_2s_transform_is_scipys(move: Transform, shape: tuple[int, ...]) -> None:
    images = noise(3, *shape)
    expected = [scipys(image, move) for image in images.numpy()]
    warped = warp("foolbox2", images, move).numpy()
    np.testing.assert_allclose(warped, np.stack(expected), atol=1e-6)


@pytest.mark.parametrize("move", MOVES, ids=str)
@pytest.mark.parametrize("shape", [(3, 12, 12), (3, 13, 13), (1, 11, 14)], ids=str)
def test_foolbox_3s_transform_is_foolboxs(move: Transform, shape: tuple[int, ...]) -> None:
    images = noise(3, *shape)
    warped = warp("foolbox3", images, move)
    assert warped.dtype == torch.float32
    np.testing.assert_allclose(warped.numpy(), foolboxs(images, move).numpy(), atol=2e-5)


def foolboxs(images: Tensor, move: Transform) -> Tensor:
    from eagerpy.astensor import astensor
    from foolbox.attacks.spatial_attack_transformations import rotate_and_shift

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # meshgrid without its indexing
        shift = (move.x, move.y)
        moved = rotate_and_shift(astensor(images), translation=shift, rotation=move.degrees)
    assert isinstance(moved.raw, Tensor)
    return moved.raw


def test_what_leaves_the_image_is_gone_and_black_comes_in() -> None:
    image = noise(1, 1, 5, 5)
    by_hand = torch.zeros_like(image)
    by_hand[..., 2:, :4] = image[..., :3, 1:]  # two down, one to the left
    moved = warp("foolbox2", image, Transform(2, -1, 0))
    np.testing.assert_allclose(moved.numpy(), by_hand.numpy(), atol=1e-6)
    moved = warp("foolbox3", image, Transform(1 * 5 / 4, -2 * 5 / 4, 0))
    np.testing.assert_allclose(moved.numpy(), by_hand.numpy(), atol=1e-6)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_positive_angle_turns_counter_clockwise(library: Library) -> None:
    image = torch.zeros((1, 3, 9, 9))
    image[:, :, 0, 4] = 1
    quarter = warp(library, image, Transform(0, 0, 89.9))  # top -> left
    assert quarter[0, 0].argmax() == 4 * 9
    assert quarter[0, 0].max() > 0.95


def test_a_canvas_that_foolbox_2_cannot_crop_is_explained() -> None:
    with pytest.raises(ConfigurationError, match="leaves 12 x 8 pixels of 8 x 12"):
        warp("foolbox2", noise(1, 1, 8, 12), Transform(0, 0, 90))
