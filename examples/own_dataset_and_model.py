"""Your own images and your own network: a folder of class folders, and a factory by name.

Writes 600 of scikit-learn's digits as PNG files into one folder per class, trains a network of its
own, and builds a bank. The network names its outputs (`class_names`), so folders map to them by
name.

Run: python examples/own_dataset_and_model.py runs/own
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from regroup.images.preprocessing import Preprocessing
from regroup.models import save_weights
from regroup_pipelines.commands import build_bank
from regroup_pipelines.configs.steps import BuildBankConfig

IMAGES = 600


class OwnNetwork(nn.Sequential):
    """Normalised (N, 3, 8, 8) to logits (N, 10); the attributes say what it takes and returns."""

    class_names = "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"
    preprocessing = Preprocessing(crop=8)
    normalize_mean, normalize_std = (0.3, 0.3, 0.3), (0.4, 0.4, 0.4)


def build_network() -> nn.Module:
    """The factory: any function or class that a module on Python's path has."""
    first, second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, stride=2, padding=1)
    return OwnNetwork(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))


def write_images_and_weights(images: Path, weights: Path) -> None:
    """Write the digits as images/NAME/0000.png ..., and a network that is fitted to them."""
    pixels, labels = (each[:IMAGES] for each in load_digits(return_X_y=True))
    for number, (values, label) in enumerate(zip(pixels, labels, strict=True)):
        path = images / OwnNetwork.class_names[label] / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((values.reshape(8, 8) * 255 / 16).astype("uint8")).save(path)
    torch.manual_seed(0)
    network, inputs = build_network(), torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        outputs = network((inputs.expand(-1, 3, -1, -1) - 0.3) / 0.4)
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(outputs, torch.from_numpy(labels)))
        optimizer.step()
    save_weights(network, weights, {})


def main(folder: str) -> None:
    """Write images and weights, build the bank, and print what it is made of."""
    images, weights = Path(folder, "images"), Path(folder, "own.safetensors")
    write_images_and_weights(images, weights)
    config = BuildBankConfig(
        store=str(Path(folder, "store")),
        dataset=f"imagefolder:{images}",
        model="own_dataset_and_model:build_network",
        weights=str(weights),
        per_class=20,
        workers=1,  # by default one per core
    )
    bank = build_bank.main(config)
    print(f"taps {', '.join(bank['taps'])}; samples per class {bank['samples']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
