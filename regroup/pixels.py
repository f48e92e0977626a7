"""From the encoded bytes of an image to the square of pixels that a network sees."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError

from regroup.errors import ConfigurationError, RegroupError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Interpolation = Literal["bilinear", "bicubic", "nearest"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)

# Named one by one, because Pillow also opens formats that start another program (EPS).
FORMATS = ("JPEG", "PNG", "PPM", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000")


class UnreadableImageError(RegroupError):
    """One image cannot be turned into pixels; the message is a one-line reason."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the pixels of a network: RGB, resize, centre crop, [0, 1].

    Normalisation belongs to the model, so that attacks work in pixel space.

    Attributes:
        crop: side of the square the network sees, px.
        resize: length of the shorter side before the centre crop, px; None: no resize, the
            image must then be ``crop`` x ``crop`` already.
        interpolation: filter of the resize; bilinear and bicubic are antialiased.

    Raises:
        ConfigurationError: a side below 1, a crop larger than the resized image, or an
            unknown interpolation.
    """

    crop: int
    resize: int | None = None
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        if self.crop < 1:
            raise ConfigurationError(f"crop must be at least 1 px, not {self.crop}.")
        if self.resize is not None and self.resize < self.crop:
            raise ConfigurationError(
                f"A crop of {self.crop} px does not fit into an image resized to {self.resize} px: "
                "choose resize >= crop."
            )
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ConfigurationError(
                f"Unknown interpolation {self.interpolation!r}: choose one of {known}."
            )

    def describe(self) -> dict[str, object]:
        """Return all that determines the pixels, as plain JSON for fingerprints."""
        return asdict(self)


def decode(data: bytes, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Decode one image exactly as torchvision's PIL path does.

    That is ``Resize``, ``CenterCrop`` and ``ToTensor`` on ``Image.convert("RGB")``. EXIF
    rotation is ignored, as there. An image of several frames gives its first.

    Args:
        data: the encoded image (JPEG, PNG, PPM/PGM, WebP, BMP, GIF, TIFF or JPEG 2000).
        preprocessing: sizes in px.

    Returns:
        (3, crop, crop) float32 in [0, 1], C-contiguous.

    Raises:
        UnreadableImageError: truncated, not an image, too large to decode, or of another
            size than ``crop`` where no resize is asked for.
    """
    image = _resize(_decode_rgb(data), preprocessing)
    square = np.asarray(_center_crop(image, preprocessing.crop)).transpose(2, 0, 1)
    return np.ascontiguousarray(square, dtype=np.float32) / np.float32(255)


def _decode_rgb(data: bytes) -> Image.Image:
    if not data:
        raise UnreadableImageError("The image has no bytes.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.convert("RGB")
    except UnidentifiedImageError:
        # Pillow's own message names a memory address, which would differ between attempts.
        raise UnreadableImageError(
            f"Not an image of a known format ({', '.join(FORMATS)})."
        ) from None
    except MemoryError:  # says nothing about the image
        raise
    except Exception as error:
        # Decoders raise nearly anything on damaged bytes (OSError, SyntaxError, struct.error,
        # IndexError ...), and one bad image must cost its row, not its block.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(f"The image cannot be decoded: {reason}") from error


def _resize(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Bring the shorter side to ``resize`` px; the longer one is rounded down."""
    width, height = image.size
    if preprocessing.resize is None:
        if (width, height) != (preprocessing.crop, preprocessing.crop):
            raise UnreadableImageError(
                f"The image is {width} x {height} px and no resize is set, so it must be "
                f"{preprocessing.crop} x {preprocessing.crop} px."
            )
        return image
    short = preprocessing.resize
    long = int(short * max(width, height) / min(width, height))
    _check_area(width, height, short, long)
    size = (short, long) if width <= height else (long, short)
    return image.resize(size, Image.Resampling[preprocessing.interpolation.upper()])


def _check_area(width: int, height: int, short: int, long: int) -> None:
    """Refuse a sliver whose resized longer side would not fit into memory."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and short * long > limit:
        raise UnreadableImageError(
            f"The image is {width} x {height} px; with the shorter side at {short} px it would "
            f"have {short * long} px, above the limit of {limit}."
        )


def _center_crop(image: Image.Image, crop: int) -> Image.Image:
    width, height = image.size
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    return image.crop((left, top, left + crop, top + crop))
