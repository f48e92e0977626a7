"""The network behind its normalisation: pixels in [0, 1] in, logits out, forward passes counted."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from regroup.pixels import Preprocessing

_lock = threading.Lock()
_forward_samples = 0


def forward_samples() -> int:
    """Samples that went through any Classifier of this process so far: re-scoring adds none."""
    return _forward_samples


def _count(samples: int) -> None:
    global _forward_samples
    with _lock:
        _forward_samples += samples


@dataclass(frozen=True)
class Normalisation:
    """Per-channel (RGB) mean and standard deviation of pixels in [0, 1]."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def describe(self) -> dict[str, object]:
        """Plain JSON for fingerprints."""
        return {"mean": list(self.mean), "std": list(self.std)}


IMAGENET_NORMALISATION = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Normalize(nn.Module):
    """(pixels - mean) / std for each channel of (N, 3, H, W)."""

    def __init__(self, normalisation: Normalisation) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, 3, 1, 1), False)
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, 3, 1, 1), False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise (N, 3, H, W)."""
        return (pixels - self.mean) / self.std


class Classifier(nn.Module):
    """A classifier in eval state with frozen parameters.

    network: the nn.Module behind the normalisation; names of taps are relative to it.
    preprocessing: how image bytes become the pixels it takes.
    num_classes: M. weights_sha256: 64 hex characters.
    samples_forwarded: how many samples this Classifier has seen.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        architecture: str,
        preprocessing: Preprocessing,
        normalisation: Normalisation,
        num_classes: int,
        weights_sha256: str,
    ) -> None:
        super().__init__()
        self.network = network
        self.normalize = Normalize(normalisation)
        self.name = name
        self.architecture = architecture
        self.preprocessing = preprocessing
        self.normalisation = normalisation
        self.num_classes = num_classes
        self.weights_sha256 = weights_sha256
        self.samples_forwarded = 0
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (N, 3, H, W) in [0, 1] to logits (N, M) float32."""
        self.samples_forwarded += len(pixels)
        _count(len(pixels))
        logits: Tensor = self.network(self.normalize(pixels))
        return logits.float()

    def describe(self) -> dict[str, object]:
        """All that determines the logits, as plain JSON for fingerprints."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "weights_sha256": self.weights_sha256,
            "preprocessing": self.preprocessing.describe(),
            "normalisation": self.normalisation.describe(),
            "num_classes": self.num_classes,
        }
