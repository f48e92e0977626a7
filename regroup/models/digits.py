"""The demo's network: seven convolutions with BatchNorm for the ten digits, trained in seconds."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from regroup.images.preprocessing import Preprocessing
from regroup.models.assemble import BuiltNetwork, normalisation_of
from regroup.models.classifier import Normalisation, Normalize
from regroup.models.weights import build_seeded, built_to_fit

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from regroup.models.spec import ModelSpec

DIGITS_CNN = "digits-cnn"
DIGITS_SIDE = 16
DIGITS_NORMALISATION = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
DIGITS_METADATA = {
    "arch": DIGITS_CNN,
    "normalize_mean": "0.5,0.5,0.5",
    "normalize_std": "0.5,0.5,0.5",
}
_LAYERS = ((16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (64, 1))  # channels, stride
_BATCH = 64


class DigitsCNN(nn.Module):
    """Convolution, BatchNorm, ReLU seven times; global mean; linear."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        inputs = (3, *(channels for channels, _ in _LAYERS))
        self.blocks = nn.ModuleList(
            _block(before, channels, stride)
            for before, (channels, stride) in zip(inputs, _LAYERS, strict=False)
        )
        self.linear = nn.Linear(_LAYERS[-1][0], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, S, S) to logits (N, M)."""
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def build_digits_cnn(spec: ModelSpec) -> BuiltNetwork:
    """Build the demo's network with the spec's weights file; images are resized to 16 px."""
    network, classes, weights = built_to_fit(DigitsCNN, spec, 10, spec.weights)
    normalisation = normalisation_of(weights.metadata, DIGITS_NORMALISATION)
    preprocessing = Preprocessing(DIGITS_SIDE, resize=DIGITS_SIDE)
    names = tuple("0123456789") if classes == 10 else None
    return BuiltNetwork(
        network, DIGITS_CNN, classes, weights.sha256, preprocessing, normalisation, names,
        weights.notes,
    )  # fmt: skip


def train_digits_cnn(
    images: NDArray[np.float32], labels: NDArray[np.integer], seed: int, *, epochs: int = 8
) -> nn.Module:
    """Train the demo's network; return it in eval state.

    Adam under a one-cycle learning rate. The result depends on the arguments, on torch's release
    and on the kind of CPU (its vector instructions), not on the number of threads. Save it with
    `save_weights(module, path, DIGITS_METADATA)`.

    Args:
        images: (n, 3, S, S) float32 in [0, 1].
        labels: (n,).
        seed: of the initial weights and the order of batches.
        epochs: passes over the images.
    """
    with _one_thread():
        return _trained(
            torch.from_numpy(images), torch.from_numpy(labels.astype("int64")), seed, epochs
        )


def _trained(pixels: Tensor, classes: Tensor, seed: int, epochs: int) -> nn.Module:
    network = build_seeded(DigitsCNN, seed)
    normalize = Normalize(DIGITS_NORMALISATION)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=1e-4)
    orders = torch.cat([torch.randperm(len(pixels), generator=generator) for _ in range(epochs)])
    batches = [orders[i : i + _BATCH] for i in range(0, len(orders), _BATCH)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=len(batches))
    network.train()
    for rows in batches:
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(normalize(pixels[rows])), classes[rows])
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return network.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: a sum over the batch is split by threads, and rounded accordingly."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
