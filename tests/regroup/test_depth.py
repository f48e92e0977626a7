"""Images of every mode and depth: their right brightness, by hand; or a reason."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from regroup.images.decoding import PilDecoder
from regroup.images.depth import UnreadableImageError, is_deep
from regroup.images.preprocessing import DecodingLimits, Preprocessing, decode_image

# Four grey values of 16 bits, and in 8: v / 257, rounded to the nearest.
RAMP = np.array([[0, 257 * 80 + 128], [257 * 200 + 129, 65535]], np.uint16)
LEVELS = [[0, 80], [201, 255]]
WHOLE = Preprocessing(crop=2)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(
    bits: int, photometric: int, data: bytes, samples: int = 1, sample_format: int = 1
) -> bytes:
    """A TIFF of 2 x 2 px in one strip, from the TIFF 6.0 specification."""
    tags = [(256, 4, 2), (257, 4, 2), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
            (273, 4, 0), (277, 3, samples), (278, 4, 2), (279, 4, len(data)),
            (339, 3, sample_format)]  # fmt: skip
    start = 10 + 12 * len(tags) + 4
    many = struct.pack("<3H", *[bits] * 3) + struct.pack("<3H", *[sample_format] * 3)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for tag, kind, value in tags:
        place = {258: start, 339: start + 6}.get(tag) if samples == 3 else None
        if tag == 273:
            value = start + len(many)
        count, value = (3, place) if place is not None else (1, value)
        head += struct.pack("<HHII", tag, kind, count, value)
    return head + bytes(4) + many + data


def levels(data: bytes) -> NDArray[np.int64]:
    """Grey levels of the pixels, which have three equal channels."""
    pixels: NDArray[np.int64] = np.rint(decode_image(data, WHOLE) * 255).astype(np.int64)
    assert (pixels == pixels[:1]).all()
    first: NDArray[np.int64] = pixels[0]
    return first


TWELVE = bytes([0x00, 0x05, 0x05, 0xC9, 0x2F, 0xFF])  # two to three bytes: 0, 1285; 3218, 4095


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(encoded(Image.fromarray(RAMP), "PNG"), LEVELS, id="png"),
        pytest.param(encoded(Image.fromarray(RAMP), "TIFF"), LEVELS, id="tiff"),
        pytest.param(encoded(Image.fromarray(RAMP), "JPEG2000"), LEVELS, id="jp2"),
        pytest.param(b"P5\n2 2\n65535\n" + RAMP.astype(">u2").tobytes(), LEVELS, id="pgm"),
        # 1023 is white: 321 / 1023 * 255 = 80.01, 804 / 1023 * 255 = 200.41
        pytest.param(b"P5\n2 2\n1023\n" + np.array([0, 321, 804, 1023], ">u2").tobytes(),
                     [[0, 80], [200, 255]], id="ten-bit-pgm"),
        pytest.param(tiff(16, 1, RAMP.tobytes()), LEVELS, id="tiff-by-hand"),
        pytest.param(tiff(16, 0, (65535 - RAMP).tobytes()), LEVELS, id="white-is-zero"),
        # 4095 is white: 1285 / 4095 * 255 = 80.02, 3218 / 4095 * 255 = 200.39
        pytest.param(tiff(12, 1, TWELVE), [[0, 80], [200, 255]], id="twelve-bit"),
        pytest.param(encoded(Image.new("1", (2, 2), 1), "PNG"), [[255] * 2] * 2, id="one-bit"),
        # 31 is white: 16 / 31 * 255 = 131.6
        pytest.param(b"P5\n2 2\n31\n" + bytes([0, 16, 16, 31]), [[0, 132], [132, 255]], id="pgm-5"),
        pytest.param(tiff(8, 0, bytes([255, 55, 55, 0])), [[0, 200], [200, 255]], id="white-8"),
    ],
)  # fmt: skip
def test_grey_has_its_brightness_whatever_its_depth(data: bytes, expected: list[list[int]]) -> None:
    np.testing.assert_array_equal(levels(data), expected)


def test_colour_of_sixteen_bits_has_its_brightness() -> None:
    rgb = np.stack([RAMP, RAMP // 2, RAMP // 3], axis=-1)
    for data in (tiff(16, 2, rgb.tobytes(), 3),
                 b"P6\n2 2\n65535\n" + rgb.astype(">u2").tobytes()):  # fmt: skip
        pixels = decode_image(data, WHOLE).transpose(1, 2, 0)
        np.testing.assert_allclose(pixels, rgb / 65535, atol=1 / 255)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "floating-point"),
        (b"Pf\n2 2\n-1.0\n" + np.ones(4, "<f4").tobytes(), "floating-point"),
        (encoded(Image.fromarray(np.ones((2, 2), np.int32)), "TIFF"), "signed or 32-bit"),
        (tiff(16, 1, RAMP.tobytes(), sample_format=2), "signed or 32-bit"),
    ],
)
def test_values_without_a_white_are_a_failed_row(data: bytes, kind: str) -> None:
    with pytest.raises(UnreadableImageError, match=f"has {kind} values, of which none is known"):
        decode_image(data, WHOLE)
    assert is_deep(data)


def test_only_deep_images_are_deep() -> None:
    grey = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2))
    kinds = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
    assert not any(is_deep(encoded(grey, kind)) for kind in kinds)
    assert not any(is_deep(encoded(grey.convert("RGBA"), kind)) for kind in ("PNG", "TIFF", "WEBP"))
    assert not any(map(is_deep, (b"", b"P5", b"no image", b"\x89PNG\r\n\x1a\n")))
    assert all(is_deep(encoded(Image.fromarray(RAMP), kind)) for kind in ("PNG", "TIFF"))


def test_a_deep_image_is_a_failed_row_where_the_index_declares_none() -> None:
    data = encoded(Image.fromarray(RAMP), "PNG")
    decoded = PilDecoder(WHOLE, DecodingLimits(deep=False))([data])
    assert "has more than 8 bits per channel, which its index does not declare" in decoded.errors[0]
    grey = encoded(Image.fromarray(np.full((2, 2), 9, np.uint8)), "PNG")
    assert PilDecoder(WHOLE, DecodingLimits(deep=False))([grey]).errors == {}


def test_of_transparent_images_the_colour_beneath_shows_and_nothing_is_warned_of() -> None:
    rgba = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([1, 2, 3, 10, 20, 30])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in (encoded(rgba, "PNG"), encoded(palette, "PNG", transparency=b"\x80\0"),
                     encoded(palette, "GIF", transparency=1)):  # fmt: skip
            pixels = decode_image(data, WHOLE)[:, 0, 0] * 255
            np.testing.assert_array_equal(np.rint(pixels), [10, 20, 30])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_an_animation_the_first_frame_is_used(kind: str) -> None:
    frames = [Image.new("RGB", (2, 2), (level,) * 3) for level in (40, 240)]
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (levels(data) == 40).all()


@pytest.mark.parametrize(
    ("mode", "kind", "most"),
    [("RGB", "PNG", 4), ("L", "PNG", 5), ("1", "TIFF", 9), ("L", "JPEG", 5), ("RGB", "WEBP", 12)],
)
def test_an_image_that_would_take_too_much_memory_is_a_failed_row(
    mode: str, kind: str, most: int
) -> None:
    """`most` bytes per pixel: what Pillow keeps, the RGB made of it, and what the decoder needs."""
    data = encoded(Image.new(mode, (1024, 1024)), kind)
    p = Preprocessing(crop=2, resize=2)
    assert PilDecoder(p, DecodingLimits(most << 20))([data]).errors == {}
    said = PilDecoder(p, DecodingLimits((most << 20) - 1))([data]).errors[0]
    assert f"1024 x 1024 px and would take {most} MB to decode, above the limit of" in said
