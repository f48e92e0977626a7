"""The colouriser of Zhang et al. 2017: lightness and a few known colours in, all colours out.

"Real-Time User-Guided Image Colorization with Learned Deep Priors". Its parameters have the names
and shapes of the published file siggraph17-df00044c.pth (of github.com/richzhang/colorization, BSD
licence), so that this file loads unmodified.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from regroup.errors import ConfigurationError
from regroup.models.weights import Weights, file_sha256, load_into, read_weights

PUBLISHED_SHA256 = "df00044c0a4d7c3edcecf6f75437ce346a66e7a42612d9b968e1a7e17dbc6f66"
COLOUR_BINS = 529  # 23 x 23 squares of 10 x 10 in the a*b* plane
AB_SCALE = 110.0  # divides a* and b* on their way in, multiplies them on their way out
STRIDE = 8  # images are padded to multiples of this
_WIDTH = 64
_FIRST = "model1.0.weight"


class Colouriser(nn.Module):
    """The network "siggraph17", in eval state with frozen parameters; float32.

    Args:
        width: channels of the first block, of which all others are multiples.
        mask_centre: subtracted from the mask on its way in: 0 for the published file; 0.5 for
            weights that were trained by github.com/richzhang/colorization-pytorch.
    """

    def __init__(self, width: int = _WIDTH, mask_centre: float = 0.0) -> None:
        super().__init__()
        self.mask_centre = mask_centre
        one, two, four, eight = width, 2 * width, 4 * width, 8 * width
        self.model1 = _block(4, one, 2)
        self.model2 = _block(one, two, 2)
        self.model3 = _block(two, four, 3)
        self.model4 = _block(four, eight, 3)
        self.model5 = _block(eight, eight, 3, dilation=2)
        self.model6 = _block(eight, eight, 3, dilation=2)
        self.model7 = _block(eight, eight, 3)
        self.model8up, self.model3short8 = _up(eight, four), _short(four, four)
        self.model8 = nn.Sequential(nn.ReLU(), *_block(four, four, 2))
        self.model9up, self.model2short9 = _up(four, two), _short(two, two)
        self.model9 = nn.Sequential(nn.ReLU(), *_block(two, two, 1))
        self.model10up, self.model1short10 = _up(two, two), _short(one, two)
        self.model10 = nn.Sequential(nn.ReLU(), _convolution(two, two), nn.LeakyReLU(0.2))
        self.model_class = nn.Sequential(nn.Conv2d(four, COLOUR_BINS, 1))
        self.model_out = nn.Sequential(nn.Conv2d(two, 2, 1), nn.Tanh())
        self.eval().requires_grad_(False)

    def forward(self, lightness: Tensor, hints: Tensor, mask: Tensor) -> Tensor:
        """Return a* and b* of every pixel: (N, 2, H, W) in -110 .. 110.

        Args:
            lightness: (N, 1, H, W), L* in 0 .. 100.
            hints: (N, 2, H, W), a* and b* where they are known, else 0.
            mask: (N, 1, H, W), 1 where they are known, else 0.
        """
        height, width = lightness.shape[2:]
        first, second, bottom = self._encode(lightness, hints, mask)
        ninth = self.model9(self.model9up(bottom) + self.model2short9(second))
        tenth = self.model10(self.model10up(ninth) + self.model1short10(first))
        colours: Tensor = AB_SCALE * self.model_out(tenth)
        return colours[:, :, :height, :width]

    def colour_logits(self, lightness: Tensor, hints: Tensor, mask: Tensor) -> Tensor:
        """Return logits over colours for every 4 x 4 pixels: (N, 529, ceil(H/4), ceil(W/4)).

        Arguments as for `forward`.
        """
        rows, columns = (-(-side // 4) for side in lightness.shape[2:])
        logits: Tensor = self.model_class(self._encode(lightness, hints, mask)[2])
        return logits[:, :, :rows, :columns]

    def _encode(
        self, lightness: Tensor, hints: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the outputs of blocks 1, 2 and 8, of the padded image."""
        seen = self._padded(lightness, hints, mask)
        first = self.model1(seen)
        # Every second row and column: the published network subsamples instead of pooling.
        second = self.model2(first[:, :, ::2, ::2])
        third = self.model3(second[:, :, ::2, ::2])
        fourth = self.model4(third[:, :, ::2, ::2])
        seventh = self.model7(self.model6(self.model5(fourth)))
        return first, second, self.model8(self.model8up(seventh) + self.model3short8(third))

    def _padded(self, lightness: Tensor, hints: Tensor, mask: Tensor) -> Tensor:
        """Normalise and join; repeat the last row or column up to multiples of 8.

        The colours of the padding are unknown.
        """
        height, width = lightness.shape[2:]
        margin = (0, -width % STRIDE, 0, -height % STRIDE)
        known = functional.pad(torch.cat((hints / AB_SCALE, mask), dim=1), margin)
        light = functional.pad((lightness - 50) / 100, margin, mode="replicate")
        return torch.cat((light, known[:, :2], known[:, 2:] - self.mask_centre), dim=1)


def _convolution(inputs: int, outputs: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)


def _block(inputs: int, outputs: int, convolutions: int, dilation: int = 1) -> nn.Sequential:
    """Build 3 x 3 convolutions, each with its ReLU, and one BatchNorm at the end."""
    layers: list[nn.Module] = []
    for index in range(convolutions):
        layers += [_convolution(outputs if index else inputs, outputs, dilation), nn.ReLU()]
    return nn.Sequential(*layers, nn.BatchNorm2d(outputs))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1))


def _short(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_convolution(inputs, outputs))


def colouriser_sha256(path: str, expected: str | None = None) -> str:
    """Return the sha256 of a weights file; read once per process, while the file is unchanged.

    Raises:
        ConfigurationError: the file does not exist, or its sha256 is not the `expected` one.
    """
    if not Path(path).is_file():
        raise ConfigurationError(
            f"the colouriser's weights file {path} does not exist: fetch siggraph17-df00044c.pth "
            "as github.com/richzhang/colorization says"
        )
    found = _sha256(path, *_state(path))
    if expected is not None and found != expected:
        raise ConfigurationError(
            f"the colouriser's weights file {path} has sha256 {found} instead of {expected}"
        )
    return found


def load_colouriser(path: str, device: torch.device, mask_centre: float = 0.0) -> Colouriser:
    """Return the colouriser with weights of a .safetensors or .pth file, loaded once per process.

    Its width is the file's.

    Raises:
        ConfigurationError: the file does not hold weights of this network.
    """
    return _load(path, str(device), mask_centre, *_state(path))


def _state(path: str) -> tuple[int, int]:
    """Return what changes when a file is rewritten."""
    if not Path(path).is_file():
        return 0, 0
    state = Path(path).stat()
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=8)
def _sha256(path: str, _modified: int, _size: int) -> str:
    return file_sha256(Path(path))


@lru_cache(maxsize=2)
def _load(path: str, device: str, mask_centre: float, _modified: int, _size: int) -> Colouriser:
    weights = read_weights(path)
    colouriser = Colouriser(_width(weights), mask_centre)
    load_into(colouriser, weights, "the colouriser siggraph17")
    return colouriser.to(device)


def _width(weights: Weights) -> int:
    first = weights.tensors.get(_FIRST)
    return len(first) if first is not None and first.ndim else _WIDTH
