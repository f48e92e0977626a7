"""The network behind its normalisation: pixels in [0, 1] in, logits out, forward passes counted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from regroup.errors import ConfigurationError
from regroup.forward_passes import count_forward_pass
from regroup.models.compute import Compute
from regroup.models.outputs import logits_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from regroup.images.preprocessing import Preprocessing


@dataclass(frozen=True)
class Normalisation:
    """Per-channel (RGB) mean and standard deviation of pixels in [0, 1]."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def describe(self) -> dict[str, object]:
        """Return plain JSON for fingerprints."""
        return {"mean": list(self.mean), "std": list(self.std)}


IMAGENET_NORMALISATION = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def check_normalisation(found: Normalisation, model: str) -> None:
    """Raise ConfigurationError unless `found` can be the normalisation of pixels in [0, 1]."""
    for name, values, most in (("mean", found.mean, 1.0), ("std", found.std, 2.0)):
        what = f"the normalisation of model {model} has the {name} {_numbers(values)}"
        if not all(math.isfinite(value) for value in values):
            raise ConfigurationError(f"{what}: each value must be finite")
        if name == "std" and min(values) <= 0:
            raise ConfigurationError(f"{what}: each value must be positive")
        if max(abs(value) for value in values) > most:
            raise ConfigurationError(
                f"{what}, and pixels are in [0, 1] here: divide the values of a scale of 0 to 255 "
                "by 255"
            )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


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

    Args:
        network: the nn.Module behind the normalisation; names of taps are relative to it.
        name: as given in the spec.
        architecture: name of the architecture.
        preprocessing: how image bytes become the pixels it takes.
        normalisation: per-channel mean and standard deviation.
        num_classes: M, of the unrestricted network.
        weights_sha256: 64 hex characters.
        class_names: of the M classes, if known.
        classes: the candidates among the M, in this order: logits, `num_classes` and `class_names`
            are then of these alone. The network's responses do not depend on them: see
            `all_logits`.
        compute: precision and memory format.
        notes: sentences about the network for the log.
        own: what describes a user's network beyond its weights; none for any other.

    Attributes:
        samples_forwarded: how many samples this Classifier has seen.

    Raises:
        ConfigurationError: `classes` repeat, are out of range or fewer than two.
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
        class_names: tuple[str, ...] | None = None,
        classes: tuple[int, ...] | None = None,
        compute: Compute = Compute(),  # noqa: B008 - frozen
        notes: tuple[str, ...] = (),
        own: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=compute.memory_format)
        self.normalize = Normalize(normalisation)
        self.name = name
        self.architecture = architecture
        self.preprocessing = preprocessing
        self.normalisation = normalisation
        self.num_classes = num_classes
        self.class_names = class_names
        self.classes = classes
        self.compute = compute
        self.notes = notes
        self._own = dict(own or {})
        self.weights_sha256 = weights_sha256
        self._kept: Tensor | None
        self.register_buffer("_kept", self._restrict(classes), False)
        self.samples_forwarded = 0
        self.eval().requires_grad_(False)

    @property
    def stochastic(self) -> bool:
        """Whether a user's network declares that its logits are random."""
        return bool(self._own.get("stochastic"))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (N, 3, H, W) in [0, 1] to logits (N, M) float32 of the candidates."""
        return self.candidates(self.all_logits(pixels)).float()

    def all_logits(self, pixels: Tensor) -> Tensor:
        """Map pixels (N, 3, H, W) in [0, 1] to logits of all of the network's classes, as they are.

        Raises:
            ConfigurationError: the network's output holds no logits: see `logits_of`.
        """
        self.samples_forwarded += len(pixels)
        count_forward_pass(len(pixels))
        normalized = self.normalize(pixels).contiguous(memory_format=self.compute.memory_format)
        with self.compute.autocast(pixels.device):
            return logits_of(self.network(normalized), len(pixels))

    def without_gradients(self) -> AbstractContextManager[None]:
        """Return the context of forward passes that nothing is differentiated through.

        Inference mode, or where tensors are sparse, which it does not take, `torch.no_grad`.
        """
        tensors = chain(self.network.parameters(), self.network.buffers())
        plain = all(tensor.layout == torch.strided for tensor in tensors)
        return torch.inference_mode() if plain else torch.no_grad()

    def candidates(self, logits: Tensor) -> Tensor:
        """Select the candidates' logits, (N, M), from those of all of the network's classes."""
        return logits if self._kept is None else logits.index_select(1, self._kept)

    def _restrict(self, classes: tuple[int, ...] | None) -> Tensor | None:
        if classes is None:
            return None
        inside = all(0 <= index < self.num_classes for index in classes)
        if not inside or len(set(classes)) < max(len(classes), 2):
            raise ConfigurationError(
                f"model {self.name} cannot be restricted to classes {list(classes)}: give two or "
                f"more different ones from 0 to {self.num_classes - 1}"
            )
        if self.class_names is not None:
            self.class_names = tuple(self.class_names[index] for index in classes)
        self.num_classes = len(classes)
        return torch.tensor(classes)

    def describe(self) -> dict[str, object]:
        """Return all that determines the logits, as plain JSON for fingerprints."""
        description: dict[str, object] = {
            "name": self.name,
            "architecture": self.architecture,
            "weights_sha256": self.weights_sha256,
            "preprocessing": self.preprocessing.describe(),
            "normalisation": self.normalisation.describe(),
            "num_classes": self.num_classes,
        }
        # Defaults are left out, so that fingerprints survive new options.
        if self.classes is not None:
            description["classes"] = list(self.classes)
        if compute := self.compute.describe():
            description["compute"] = compute
        return {**description, **self._own}
