"""Decode the encoded images of a batch to one tensor: PIL on threads, or nvJPEG on the GPU."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from regroup.errors import ConfigurationError
from regroup.images.depth import UnreadableImageError
from regroup.images.preprocessing import (
    LIMITS,
    DecodingLimits,
    Preprocessing,
    check_memory,
    check_size,
    decode_image,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Each = Callable[[Callable[[bytes], Any], Sequence[bytes]], Iterable[Any]]
    """`map`, or an executor's: how a function is applied to images that have to be decoded."""

_END_OF_JPEG = b"\xff\xd9"


@dataclass(frozen=True)
class Decoded:
    """A batch of images.

    Attributes:
        pixels: the decoded images, in order, (n, 3, crop, crop) float32 in [0, 1].
        errors: position within the batch of every other image -> one-line reason, in order.
    """

    pixels: Tensor
    errors: dict[int, str]


class Decoder(Protocol):
    """Decodes batches; the pixels of an image do not depend on the other images of its batch."""

    def __call__(self, images: Sequence[bytes], each: Each = map) -> Decoded:
        """Decode `images`; `each` applies the decoding of single images on the CPU."""


def open_decoder(
    preprocessing: Preprocessing, device: str, limits: DecodingLimits = LIMITS
) -> Decoder:
    """Return the decoder that `preprocessing` names, for a network on the torch device `device`.

    Raises:
        ConfigurationError: the decoder needs a GPU and `device` is not one.
    """
    if preprocessing.decoder == "pil":
        return PilDecoder(preprocessing, limits)
    if not device.startswith("cuda"):
        raise ConfigurationError(
            f"decoder cuda: images can be decoded on a GPU only, and this worker computes on "
            f"{device}; give the workers GPUs, or decode with PIL (--decoder pil)"
        )
    return TorchvisionDecoder(preprocessing, device, limits)


class PilDecoder:
    """`regroup.images.preprocessing.decode_image` of each image: pixels on the CPU.

    Pillow releases the GIL while it decompresses and resizes, so several threads help.
    """

    def __init__(self, preprocessing: Preprocessing, limits: DecodingLimits = LIMITS) -> None:
        self._preprocessing, self._limits = preprocessing, limits

    def __call__(self, images: Sequence[bytes], each: Each = map) -> Decoded:
        """Decode `images`."""
        outcomes = list(each(self._decode, images))
        good = [outcome for outcome in outcomes if isinstance(outcome, np.ndarray)]
        errors = {i: outcome for i, outcome in enumerate(outcomes) if isinstance(outcome, str)}
        side = self._preprocessing.crop
        empty = np.empty((0, 3, side, side), np.float32)
        return Decoded(torch.from_numpy(np.stack(good) if good else empty), errors)

    def _decode(self, data: bytes) -> np.ndarray[Any, np.dtype[np.float32]] | str:
        try:
            return decode_image(data, self._preprocessing, self._limits)
        except UnreadableImageError as error:
            return str(error)


class TorchvisionDecoder:
    """JPEGs by `torchvision.io.decode_jpeg` on a device, resized and cropped there (antialiased).

    On a GPU that is nvJPEG, whose pixels differ from PIL's by a few levels, and may differ between
    generations of GPUs. EXIF rotation is ignored, as by PIL. Images that nvJPEG cannot take or
    refuses go through PIL, resize included: other formats (a PNG named .JPEG), CMYK and YCCK, JPEGs
    of several frames, and those without an end marker, for which PIL decides whether they are
    truncated.
    """

    def __init__(
        self, preprocessing: Preprocessing, device: str, limits: DecodingLimits = LIMITS
    ) -> None:
        """Try out the decoder.

        Args:
            preprocessing: sizes in px, and the interpolation.
            device: a torch device; on "cpu" torchvision decodes with libjpeg.
            limits: what is refused.

        Raises:
            ConfigurationError: this torchvision cannot decode there.
        """
        self._preprocessing = preprocessing
        self._device = torch.device(device)
        self._pil = PilDecoder(preprocessing, limits)
        self._limits = limits
        self._try_out()

    def __call__(self, images: Sequence[bytes], each: Each = map) -> Decoded:
        """Decode `images`; the pixels are on the device."""
        jpegs = [i for i, data in enumerate(images) if self._takes(data)]
        squares = dict(zip(jpegs, self._decode([images[i] for i in jpegs]), strict=True))
        found = {i: square for i, square in squares.items() if square is not None}
        others = [i for i in range(len(images)) if i not in found]
        decoded = self._pil([images[i] for i in others], each)
        errors = {others[position]: reason for position, reason in decoded.errors.items()}
        rest = [i for i in others if i not in errors]
        found |= zip(rest, decoded.pixels.to(self._device), strict=True)
        pixels = [found[i] for i in sorted(found)]
        return Decoded(torch.stack(pixels) if pixels else decoded.pixels.to(self._device), errors)

    def _try_out(self) -> None:
        """Decode a grey JPEG: otherwise all images would quietly fall back to PIL."""
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), "grey").save(buffer, "JPEG")
        try:
            self._jpegs([buffer.getvalue()])
        except (RuntimeError, AssertionError, ImportError) as error:
            reason = " ".join(str(error).split())
            raise ConfigurationError(
                f"decoder cuda: this torchvision cannot decode JPEGs on {self._device} ({reason}); "
                "install one that can, or decode with PIL (--decoder pil)"
            ) from error

    def _takes(self, data: bytes) -> bool:
        """Return whether `data` is a complete grey or RGB JPEG of a size that PIL would accept."""
        if not data.rstrip(b"\0").endswith(_END_OF_JPEG):
            return False
        try:
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                check_size(*image.size, self._preprocessing)
                check_memory(image, self._limits)
                return image.format == "JPEG" and image.mode in ("L", "RGB")
        except Exception:  # PIL reports what is wrong with it
            return False

    def _decode(self, images: list[bytes]) -> list[Tensor | None]:
        """Return pixels (3, crop, crop) float32 of JPEGs; None where the device refuses."""
        if not images:
            return []
        try:
            return [self._square(image) for image in self._jpegs(images)]
        except torch.OutOfMemoryError:  # says nothing about an image
            raise
        except RuntimeError:  # one of them fails, and there are no partial results
            return [None] if len(images) == 1 else [self._decode([data])[0] for data in images]

    def _jpegs(self, images: list[bytes]) -> list[Tensor]:
        """Decode images to (3, height, width) uint8 on the device."""
        from torchvision.io import ImageReadMode, decode_jpeg

        encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in images]
        decoded: list[Tensor] = decode_jpeg(encoded, ImageReadMode.RGB, self._device)
        return decoded

    def _square(self, image: Tensor) -> Tensor:
        """Resize and crop (3, height, width) uint8 to (3, crop, crop) float32 in [0, 1]."""
        from torchvision.transforms.v2 import InterpolationMode, functional

        p = self._preprocessing
        if p.resize is not None:
            # "nearest" is PIL's nearest there, and another one in torch.
            name = "nearest-exact" if p.interpolation == "nearest" else p.interpolation
            mode = InterpolationMode(name)
            image = functional.resize(image, [p.resize], mode, antialias=True)
        square: Tensor = functional.center_crop(image, [p.crop, p.crop])
        # Divide by a tensor: for a number, a GPU would multiply by 1 / 255, rounded.
        return square.float() / torch.tensor(255.0, device=square.device)
