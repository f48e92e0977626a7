"""Pixels: equal to torchvision's own transforms, and a clear reason for each bad image."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms

from regroup.errors import ConfigurationError
from regroup.images.depth import UnreadableImageError
from regroup.images.preprocessing import (
    Interpolation,
    Preprocessing,
    decode_image,
)

MODES = {"RGB": 3, "L": 1, "RGBA": 4, "CMYK": 4, "LA": 2}
TORCHVISION_MODES: dict[Interpolation, transforms.InterpolationMode] = {
    "bilinear": transforms.InterpolationMode.BILINEAR,
    "bicubic": transforms.InterpolationMode.BICUBIC,
    "nearest": transforms.InterpolationMode.NEAREST,
}


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    shape = (height, width, MODES[mode])
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.frombytes(mode, (width, height), values.tobytes())


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def torchvision_pixels(
    data: bytes, crop: int, resize: int | None, interpolation: Interpolation = "bilinear"
) -> NDArray[np.float32]:
    steps: list[Any] = [transforms.CenterCrop(crop), transforms.ToTensor()]
    if resize is not None:
        steps.insert(0, transforms.Resize(resize, TORCHVISION_MODES[interpolation]))
    pixels = transforms.Compose(steps)(Image.open(io.BytesIO(data)).convert("RGB"))
    return np.asarray(pixels)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    resize=st.integers(1, 50),
    cut=st.integers(0, 49),
    interpolation=st.sampled_from(list(TORCHVISION_MODES)),
    mode=st.sampled_from(["RGB", "L", "RGBA", "LA"]),
)
def test_equals_torchvision_for_any_size_and_mode(
    width: int, height: int, resize: int, cut: int, interpolation: Interpolation, mode: str
) -> None:
    crop = max(1, resize - cut)
    data = encode(noise(width, height, mode))
    pixels = decode_image(data, Preprocessing(crop, resize, interpolation))
    np.testing.assert_array_equal(
        pixels, torchvision_pixels(data, crop, resize, interpolation), strict=True
    )


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(noise(61, 40, "CMYK"), "JPEG"), id="cmyk-jpeg"),
        pytest.param(encode(noise(61, 40), "JPEG", quality=60), id="jpeg"),
        pytest.param(encode(noise(40, 61).quantize(17)), id="palette"),
        pytest.param(encode(noise(40, 61).convert("1")), id="one-bit"),
        pytest.param(encode(noise(40, 61, "L"), "PPM"), id="pgm"),
        pytest.param(encode(noise(40, 61), "WEBP"), id="webp"),
        pytest.param(encode(noise(40, 61), "TIFF"), id="tiff"),
        pytest.param(encode(noise(40, 61), "BMP"), id="bmp"),
    ],
)
def test_equals_torchvision_for_every_format(data: bytes) -> None:
    pixels = decode_image(data, Preprocessing(crop=24, resize=32))
    np.testing.assert_array_equal(pixels, torchvision_pixels(data, 24, 32), strict=True)


def test_values_are_bytes_over_255_in_channel_row_column_order() -> None:
    image = Image.new("RGB", (2, 2))
    image.putpixel((1, 0), (255, 51, 0))  # column 1, row 0
    pixels = decode_image(encode(image), Preprocessing(crop=2))
    assert (pixels.shape, pixels.dtype.name) == ((3, 2, 2), "float32")
    assert pixels.flags.c_contiguous
    assert pixels[:, 0, 1].tolist() == [1.0, float(np.float32(0.2)), 0.0]
    assert pixels.sum() == np.float32(1.2)


def test_exif_rotation_is_ignored_as_torchvision_does() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to see it upright"
    data = encode(noise(40, 30), "JPEG", exif=exif)
    pixels = decode_image(data, Preprocessing(crop=30, resize=30))
    np.testing.assert_array_equal(pixels, torchvision_pixels(data, 30, 30))


def test_png_named_jpeg_is_read_by_its_content() -> None:
    data = encode(noise(8, 8))
    assert data.startswith(b"\x89PNG")
    assert decode_image(data, Preprocessing(crop=8)).shape == (3, 8, 8)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises `width` x `height` px."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    rest = encode(noise(1, 1))[33:]
    return b"\x89PNG\r\n\x1a\n" + chunk + rest


JPEG = encode(noise(64, 64), "JPEG")
PNG = encode(noise(64, 64))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "no bytes", id="empty"),
        pytest.param(b"not an image", "not an image of a known format", id="text"),
        pytest.param(JPEG[: len(JPEG) // 2], "truncated", id="truncated-jpeg"),
        pytest.param(JPEG[:300], "cannot be decoded|not an image", id="jpeg-header"),
        pytest.param(PNG[: len(PNG) // 2], "truncated|incomplete", id="truncated-png"),
        pytest.param(png_of_size(30000, 30000), "bomb", id="decompression-bomb"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an", id="eps"),
    ],
)
def test_bad_image_gives_a_one_line_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason) as raised:
        decode_image(data, Preprocessing(crop=32, resize=32))
    assert "\n" not in str(raised.value)
    assert " at 0x" not in str(raised.value)


def test_reason_of_several_lines_becomes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise SyntaxError("broken\n  chunk")

    monkeypatch.setattr(Image, "open", broken)
    with pytest.raises(UnreadableImageError, match=r"cannot be decoded: broken chunk$"):
        decode_image(PNG, Preprocessing(crop=64))


@settings(max_examples=40, deadline=None)
@given(
    position=st.integers(0, len(PNG) - 1),
    value=st.integers(0, 255),
    data=st.sampled_from([JPEG, PNG]),
)
def test_damaged_bytes_never_raise_anything_else(position: int, value: int, data: bytes) -> None:
    damaged = bytearray(data)
    damaged[position % len(data)] = value
    try:
        pixels = decode_image(bytes(damaged), Preprocessing(crop=16, resize=16))
    except UnreadableImageError:
        return
    assert pixels.shape == (3, 16, 16)


@pytest.mark.parametrize("size", [(31, 32), (33, 32), (40, 40)])
def test_other_size_without_resize_names_both_sizes(size: tuple[int, int]) -> None:
    message = f"{size[0]} x {size[1]} px .* 32 x 32 px"
    with pytest.raises(UnreadableImageError, match=message):
        decode_image(encode(noise(*size)), Preprocessing(crop=32))


def test_sliver_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(UnreadableImageError, match=r"1 x 9000 px.*above the limit"):
        decode_image(encode(noise(1, 9000)), Preprocessing(crop=224, resize=256))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop": 0}, "crop must be at least 1"),
        ({"crop": 64, "resize": 32}, "crop of 64 px does not fit .* 32 px"),
        ({"crop": 8, "interpolation": "lanczos"}, "unknown interpolation 'lanczos'.*bilinear"),
    ],
)
def test_invalid_preprocessing(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Preprocessing(**arguments)


def test_description_holds_all_that_determines_the_pixels() -> None:
    described = Preprocessing(crop=224, resize=256, interpolation="bicubic").describe()
    assert described == {"crop": 224, "resize": 256, "interpolation": "bicubic"}


@pytest.mark.shared_data
def test_real_photograph_equals_torchvision(shared_data: Path) -> None:
    path = min((shared_data / "imagenette-224" / "val").rglob("*.JPEG"))
    pixels = decode_image(path.read_bytes(), Preprocessing(crop=160, resize=183))
    np.testing.assert_array_equal(pixels, torchvision_pixels(path.read_bytes(), 160, 183))
