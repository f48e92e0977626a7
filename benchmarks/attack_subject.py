"""The network and images on which attacks are timed."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from regroup.attacks import AttackSpec, predictions, run_attack
from regroup.attacks.batch import AttackBatch
from regroup.attacks.network import AttackedNetwork
from regroup.errors import ConfigurationError
from regroup.images.decoding import PilDecoder
from regroup.models import (
    DIGITS_METADATA,
    Classifier,
    ModelSpec,
    load_classifier,
    save_weights,
    train_digits_cnn,
)
from regroup_pipelines.steps.demo_model import load_split
from regroup_store.sources import open_source


@dataclass(frozen=True)
class Subject:
    """The network under attack, and its images.

    Attributes:
        model: the network.
        pixels: images, (N, C, H, W).
        labels: the network's predictions, (N,).
        rows: images per batch of the network, the same for all attacks.
        number: number of the first image, used in sample ids.
    """

    model: Classifier
    pixels: Tensor
    labels: Tensor
    rows: int
    number: int = 0

    @classmethod
    def of(cls, model: Classifier, pixels: Tensor) -> Subject:
        """Attack `model` on its device, with the batch size that our attacks use there."""
        network = AttackedNetwork(model)
        pixels = pixels.to(network.device)
        return cls(model, pixels, network.predictions(pixels), network.fixed_rows)

    def first(self, count: int) -> Subject:
        """Keep only the first `count` images."""
        return Subject(self.model, self.pixels[:count], self.labels[:count], self.rows)

    def part(self, first: int, end: int) -> Subject:
        """Keep only the images from `first` to `end`; they keep their sample ids."""
        where = slice(first, end)
        cut = self.pixels[where], self.labels[where]
        return Subject(self.model, *cut, self.rows, self.number + first)

    def fooled_by_noise(self) -> Subject:
        """Keep only the images whose class differs from that of most uniform noise."""
        noise = torch.rand((64, *self.pixels.shape[1:]), generator=torch.Generator().manual_seed(0))
        usual = int(predictions(self.model, noise).mode().values)
        others = self.labels != usual
        if not bool(others.any()):
            raise ConfigurationError(f"all images are of class {usual}, as uniform noise is")
        return Subject(self.model, self.pixels[others], self.labels[others], self.rows)

    @property
    def batch(self) -> AttackBatch:
        """The batch that a kernel receives."""
        targets = torch.full_like(self.labels, -1)
        return AttackBatch(self.pixels, self.labels, targets, self._names)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"image-{self.number + row}" for row in range(len(self.pixels)))

    def ours(self, spec: AttackSpec) -> Tensor:
        """Run our attack and return its images."""
        model, rows = self.model, self.rows
        result = run_attack(spec, model, self.pixels, self.labels, self._names, rows=rows)
        return torch.from_numpy(result.images)

    def fooled(self, images: Tensor) -> float:
        """Return the share of `images` (N, C, H, W) whose predicted class is not the label."""
        return float((predictions(self.model, images) != self.labels.cpu()).double().mean())


def on_digits(count: int, device: str, epochs: int = 3) -> Subject:
    """Train a network on handwritten digits, and attack scans from outside its training set."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.safetensors"
        network = train_digits_cnn(*load_split("digits:train"), seed=0, epochs=epochs)
        save_weights(network, path, DIGITS_METADATA)
        model = load_classifier(ModelSpec("digits-cnn", str(path)))
    return Subject.of(model.to(device), _images(model, "digits:val", count))


def on_images(model: str, weights: str, images: str, count: int, device: str) -> Subject:
    """Attack the network `model` on the first images of a source, such as `parquet:FILE`."""
    classifier = load_classifier(ModelSpec(model, weights))
    return Subject.of(classifier.to(device), _images(classifier, images, count))


def _images(model: Classifier, source: str, count: int) -> Tensor:
    """Read the first images, (count, 3, H, W) float32 in [0, 1].

    Raises:
        ConfigurationError: the source has fewer readable images.
    """
    opened = open_source(source)
    pairs = zip(opened.rows(), range(count), strict=False)
    data = opened.read([row.locator for row, _ in pairs])
    encoded = [item for item in data if isinstance(item, bytes)]
    pixels = PilDecoder(model.preprocessing)(encoded).pixels
    if len(pixels) < count:
        raise ConfigurationError(f"{source} has {len(pixels)} readable images, {count} are needed")
    return pixels
