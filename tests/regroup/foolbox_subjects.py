"""Networks and samples that they classify correctly, for the tests of Foolbox's kernels."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regroup.attacks import AttackResult, AttackSpec, predictions, run_attack
from regroup.models import ModelSpec, load_classifier

SHAPE = (3, 4, 4)
SIZE = 48
MEASURES = ("images", "claimed", "target", "l2", "linf", "steps", "queries", "backward_passes")


class Affine(nn.Module):
    """Logits W x + b of flat pixels x: (M, SIZE), (M,)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, pixels: Tensor) -> Tensor:
        return nn.functional.linear(pixels.flatten(1), self.weight, self.bias)


def affine(classes: int, seed: int = 0) -> Affine:
    """Random weights; at mid-grey all logits are the same."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((classes, SIZE), generator=generator)
    return Affine(weight, -weight.sum(dim=1) / 2)


def random_pixels(count: int, shape: tuple[int, int, int] = SHAPE, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, *shape), generator=generator) * 0.4 + 0.3


def boundary_distances(model: Affine, pixels: Tensor, order: float = 2) -> Tensor:
    """(N, M): of each image to the boundary between its class and each class; its own: inf.

    In the norm of `order`: the margin over the dual norm of the difference of the weights.
    """
    with torch.no_grad():
        logits = model(pixels)
        own = logits.argmax(dim=1)
        difference = model.weight - model.weight[own][:, None]
        dual = 1.0 if order == torch.inf else 2.0
        length = torch.linalg.vector_norm(difference, ord=dual, dim=2)
        margin = logits.gather(1, own[:, None]) - logits
        return torch.where(length > 0, margin / length, torch.inf)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network with samples that it classifies correctly."""

    model: nn.Module
    pixels: Tensor

    @property
    def labels(self) -> Tensor:
        return predictions(self.model, self.pixels)

    @property
    def names(self) -> list[str]:
        return [f"image-{i:03d}" for i in range(len(self.pixels))]

    def first(self, count: int) -> "Subject":
        return Subject(self.model, self.pixels[:count])

    def attack(self, spec: AttackSpec, rows: list[int] | None = None) -> AttackResult:
        chosen = list(range(len(self.pixels))) if rows is None else rows
        names = [self.names[row] for row in chosen]
        return run_attack(spec, self.model, self.pixels[chosen], self.labels[chosen], names)


def conv_subject(count: int) -> Subject:
    """A small random network with a curved boundary, in evaluation state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, stride=2), nn.Tanh(),
            nn.Flatten(), nn.Linear(8 * 9, 5),
        )  # fmt: skip
    return Subject(network.eval(), random_pixels(count, (3, 8, 8)))


def cifar_subject(shared_data: Path, count: int) -> Subject:
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(shared_data / "cifar10" / "test-00000-of-00002.parquet").slice(0, 40)
    files = [Image.open(io.BytesIO(row["bytes"])) for row in table["image"].to_pylist()]
    stacked = np.stack([np.asarray(file.convert("RGB"), np.float32) for file in files]) / 255
    pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()
    weights = shared_data / "weights" / "cifar10-resnet20.safetensors"
    model = load_classifier(ModelSpec("cifar-resnet20", str(weights)))
    correct = predictions(model, pixels) == torch.tensor(table["label"].to_pylist())
    return Subject(model, pixels[correct][:count])


def in_batches(
    spec: AttackSpec, subject: Subject, rows: list[int], size: int
) -> list[AttackResult]:
    """Attack `rows` in that order, `size` at a time, with the global generator anywhere."""
    parts = []
    for i in range(0, len(rows), size):
        torch.manual_seed(size)
        parts.append(subject.attack(spec, rows[i : i + size]))
    return parts


def measure(parts: list[AttackResult], name: str) -> np.ndarray:
    return np.concatenate([getattr(part, name) for part in parts])


def library() -> Any:
    """Foolbox's attacks, to call directly."""
    import foolbox.attacks

    return foolbox.attacks


def foolbox_model(model: nn.Module) -> Any:
    from foolbox.models.pytorch import PyTorchModel

    return PyTorchModel(model.eval(), bounds=(0, 1), device="cpu")
