"""Preprocessing: from the encoded bytes of an image to the square of pixels a network sees."""

from __future__ import annotations

import io
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError

from regroup.errors import ConfigurationError
from regroup.images.depth import FORMATS, UnreadableImageError, has_deep_mode, scaled_to_eight_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

Interpolation = Literal["bilinear", "bicubic", "nearest"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
DecoderName = Literal["pil", "cuda"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)

# Said in a sentence by `check_memory`, where the limit can be raised.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Bytes per pixel that Pillow keeps, by mode; others have four.
_KEPT = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_RGB, _SCALED = 4, 10
# Bytes per pixel that a decoder needs besides: canvases of WebP and GIF, openjpeg's integers,
# strips of a TIFF; of a JPEG the coefficients of all scans.
_DECODER = {"WEBP": 8, "GIF": 4, "JPEG2000": 16, "TIFF": 4}
_SCANS = 6


@dataclass(frozen=True)
class DecodingLimits:
    """What is not decoded, and becomes a failed row.

    Attributes:
        largest: bytes that decoding one image may cost.
        deep: whether grey of more than 8 bits is decoded. False for an index that does not declare
            such images: earlier releases took them for 8 bits, under the same fingerprints.
    """

    largest: int = 256 << 20
    deep: bool = True


LIMITS = DecodingLimits()


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the pixels of a network: RGB, resize, centre crop, [0, 1].

    Normalisation belongs to the model, so that attacks work in pixel space.

    Attributes:
        crop: side of the square the network sees, px.
        resize: length of the shorter side before the centre crop, px; None: no resize, the image
            must then already be ``crop`` x ``crop``.
        interpolation: filter of the resize; bilinear and bicubic are antialiased.
        decoder: "pil", or "cuda" for JPEGs decoded and resized on the GPU: different pixels.

    Raises:
        ConfigurationError: a side below 1, a crop larger than the resized image, or an unknown
            interpolation or decoder.
    """

    crop: int
    resize: int | None = None
    interpolation: Interpolation = "bilinear"
    decoder: DecoderName = "pil"

    def __post_init__(self) -> None:
        if self.crop < 1:
            raise ConfigurationError(f"crop must be at least 1 px, not {self.crop}")
        if self.resize is not None and self.resize < self.crop:
            raise ConfigurationError(
                f"a crop of {self.crop} px does not fit into an image resized to {self.resize} px: "
                "choose resize >= crop"
            )
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ConfigurationError(
                f"unknown interpolation {self.interpolation!r}: choose one of {known}"
            )
        if self.decoder not in DECODERS:
            raise ConfigurationError(
                f"unknown decoder {self.decoder!r}: choose one of {', '.join(DECODERS)}"
            )

    def describe(self) -> dict[str, object]:
        """Return all that determines the pixels, as plain JSON for fingerprints."""
        described = asdict(self)
        # Defaults are left out, so that fingerprints survive new options.
        if self.decoder == "pil":
            del described["decoder"]
        return described


def decode_image(
    data: bytes, preprocessing: Preprocessing, limits: DecodingLimits = LIMITS
) -> NDArray[np.float32]:
    """Decode one image with PIL, exactly as torchvision's PIL path does.

    That is ``Resize``, ``CenterCrop`` and ``ToTensor`` on ``Image.convert("RGB")``. EXIF rotation
    and transparency are ignored, as there: the colour beneath shows. Of several frames the first is
    used. Grey of more than 8 bits, which ``convert`` clips, is scaled.

    Args:
        data: the encoded image (JPEG, PNG, PPM/PGM, WebP, BMP, GIF, TIFF or JPEG 2000).
        preprocessing: sizes in px.
        limits: what is refused.

    Returns:
        (3, crop, crop) float32 in [0, 1], C-contiguous.

    Raises:
        UnreadableImageError: truncated, not an image, too large to decode, or of another size than
            ``crop`` without a resize.
    """
    image = _resize(_decode_rgb(data, limits), preprocessing)
    square = np.asarray(_center_crop(image, preprocessing.crop)).transpose(2, 0, 1)
    return np.ascontiguousarray(square, dtype=np.float32) / np.float32(255)


def _decode_rgb(data: bytes, limits: DecodingLimits) -> Image.Image:
    if not data:
        raise UnreadableImageError("the image has no bytes")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_memory(image, limits)
            return _rgb(image, limits)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        # Pillow's own message names a memory address, which would differ between attempts.
        raise UnreadableImageError(
            f"not an image of a known format ({', '.join(FORMATS)})"
        ) from None
    except MemoryError:  # says nothing about the image
        raise
    except Exception as error:
        # Decoders raise nearly anything on damaged bytes (OSError, SyntaxError, struct.error,
        # IndexError ...), and one bad image must cost its row, not its block.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(f"the image cannot be decoded: {reason}") from error


def _rgb(image: Image.Image, limits: DecodingLimits) -> Image.Image:
    if has_deep_mode(image):
        if not limits.deep:
            raise UnreadableImageError(
                "the image has more than 8 bits per channel, which its index does not declare: "
                "remove the folders of this dataset in digests/ of the store, and index it again"
            )
        return scaled_to_eight_bits(image).convert("RGB")
    image.info.pop("transparency", None)  # of which Pillow would warn
    return image.convert("RGB")


def check_memory(image: Image.Image, limits: DecodingLimits) -> None:
    """Raise UnreadableImageError for an opened image whose decoding would cost too much memory."""
    bytes_per_pixel = _KEPT.get(image.mode, 4) + _DECODER.get(image.format or "", 0)
    bytes_per_pixel += _SCALED if has_deep_mode(image) else 0
    bytes_per_pixel += 0 if image.mode == "RGB" else _RGB
    bytes_per_pixel += _SCANS if image.info.get("progressive") else 0
    width, height = image.size
    if (cost := width * height * bytes_per_pixel) > limits.largest:
        raise UnreadableImageError(
            f"the image is {width} x {height} px and would take {cost >> 20} MB to decode, above "
            f"the limit of {limits.largest >> 20} MB per sample (--sample-memory)"
        )


def check_size(width: int, height: int, preprocessing: Preprocessing) -> None:
    """Raise UnreadableImageError for the size (px) of an image that cannot be prepared.

    Without a resize it must be the crop's; a sliver would not fit into memory when resized.
    """
    limit = Image.MAX_IMAGE_PIXELS
    short, crop = preprocessing.resize, preprocessing.crop
    if short is None and (width, height) != (crop, crop):
        raise UnreadableImageError(
            f"the image is {width} x {height} px and no resize is set, so it must be "
            f"{crop} x {crop} px"
        )
    if short is not None and limit is not None and short * _long(width, height, short) > limit:
        raise UnreadableImageError(
            f"the image is {width} x {height} px; with the shorter side at {short} px it would "
            f"have {short * _long(width, height, short)} px, above the limit of {limit}"
        )


def _long(width: int, height: int, short: int) -> int:
    """Return the longer side if the shorter one has `short` px; rounded down."""
    return int(short * max(width, height) / min(width, height))


def _resize(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Bring the shorter side to ``resize`` px."""
    width, height = image.size
    check_size(width, height, preprocessing)
    if preprocessing.resize is None:
        return image
    short, long = preprocessing.resize, _long(width, height, preprocessing.resize)
    size = (short, long) if width <= height else (long, short)
    return image.resize(size, Image.Resampling[preprocessing.interpolation.upper()])


def _center_crop(image: Image.Image, crop: int) -> Image.Image:
    width, height = image.size
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    return image.crop((left, top, left + crop, top + crop))
