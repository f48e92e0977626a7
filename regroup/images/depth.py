"""Images of more than 8 bits per channel: their brightness in 8 bits, or why there is none.

Pillow keeps them in modes whose conversion to RGB clips at 255, so that nearly all of an image is
white. (RGB of 16 bits it reads as 8 bits itself.)
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from regroup.errors import RegroupError

# Listed explicitly, because Pillow also opens formats that start another program (EPS).
FORMATS = ("JPEG", "PNG", "PPM", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000")
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
_DEEP = (*_SIXTEEN, "I", "F")
# First bytes of formats that have 8 bits per channel.
_EIGHT = (b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")
_PNG = b"\x89PNG\r\n\x1a\n"
# Where a PNG states its bits and its colour type, and what they are for grey of 16 bits.
_PNG_DEPTH, _PNG_GREY = slice(24, 26), bytes([16, 0])
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


class UnreadableImageError(RegroupError):
    """One image cannot be turned into pixels; the message is a one-line reason."""


def is_deep(data: bytes) -> bool:
    """Whether an encoded image has a mode of more than 8 bits; only its header is read."""
    if data.startswith(_EIGHT):
        return False
    if data.startswith(_PNG):
        return data[_PNG_DEPTH] == _PNG_GREY
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.mode in _DEEP
    except Exception:  # whoever decodes it says what is wrong with it
        return False


def has_deep_mode(image: Image.Image) -> bool:
    """Whether an opened image has a mode of more than 8 bits."""
    return image.mode in _DEEP


def scaled_to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey of 10 to 16 bits to 8: 255 v / white, rounded to the nearest level.

    Raises:
        UnreadableImageError: no brightness is known to be white.
    """
    white = _white(image)
    values = np.asarray(image).astype(np.uint32)
    values *= 255
    values += white // 2
    values //= white
    levels = values.astype(np.uint8)
    if image.format == "TIFF" and _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        levels = 255 - levels  # Pillow inverts 8 bits, but not 16
    return Image.fromarray(levels)


def _white(image: Image.Image) -> int:
    """The value of white."""
    if image.mode in _SIXTEEN:
        bits = _tag(image, _BITS) if image.format == "TIFF" else 16
        return (1 << bits) - 1
    if image.mode == "I" and image.format == "PPM":
        return 65535  # whatever the file's own maximum: Pillow scales to it
    kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
    raise UnreadableImageError(
        f"the image has {kind} values, of which none is known to be white: convert it to 8 or 16 "
        "bits"
    )


def _tag(image: Image.Image, tag: int) -> int:
    value = image.tag_v2.get(tag, 16)  # type: ignore[attr-defined]
    return int(value[0] if isinstance(value, tuple) else value)
