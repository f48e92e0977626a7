"""Comparison with the released demo's method: `python -m benchmarks.released_demo [--device cuda]`.

The demo runs the network once per layer and image, with a hook on that layer alone, sums the
positive and the negative responses, and computes the KL divergence of every class in NumPy. It is
reimplemented here from the method (paper arXiv 2006.10679, eqs. 2 to 7), in float64, for a VGG-19
for 32-px images, ten classes, with the outputs of its convolutions and linear layer. Ours is
`Extractor` and `Scorer` on a batch of the same images. Ratio: their time per sample over ours, at
least 20 on a CPU and 500 on a GPU. Predictions must agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.networks import build, noise
from benchmarks.paired import Comparison, Contender, Fact, Item, Setting, command
from regroup.accumulators import Extractor
from regroup.bank import DELTA, Bank, BankStatistics
from regroup.scoring import Scorer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

CPU_TARGET, GPU_TARGET = 20.0, 500.0
CLASSES, SIDE = 10, 32


@dataclass(frozen=True)
class Size:
    """Sizes of a run.

    Attributes:
        ours: images in our batch.
        theirs: images that the demo's method processes, one by one.
    """

    ours: int
    theirs: int


SIZES = {"tiny": Size(4, 2), "small": Size(256, 8), "full": Size(1024, 32)}


def items(setting: Setting) -> Iterator[Item]:
    """Yield the comparison and the number of predictions that differ."""
    size, device = SIZES[setting.sizes], setting.device
    network = build("vgg19-32", CLASSES).to(device)
    pixels = noise(size.ours, SIDE, device)
    extractor = Extractor(network, "linear", pixels)
    bank = bank_of(extractor, device)
    scorer = Scorer(bank, device=device)

    def ours() -> NDArray[np.int64]:
        """Return the predictions (N,) for the complete batch."""
        return batched(extractor, scorer, pixels)

    def theirs() -> NDArray[np.int64]:
        """Return the predictions for the first images, one after the other."""
        return np.array([demo(network, bank, image) for image in pixels[: size.theirs, None]])

    target = CPU_TARGET if device == "cpu" else GPU_TARGET
    notes: dict[str, object] = {"taps": len(bank.taps), "batch": size.ours}
    contender = Contender("Extractor and Scorer", ours, target, "gain", size.ours, notes)
    yield Comparison("a pass a layer an image, NumPy", theirs, (contender,), size.theirs)
    wrong = int((ours()[: size.theirs] != theirs()).sum())
    yield Fact("predictions that differ", wrong, 0, {"images": size.theirs})


@torch.inference_mode()
def bank_of(extractor: Extractor, device: str) -> Bank:
    """Build a bank from the network's responses to noise, five images per class."""
    found = extractor(noise(5 * CLASSES, SIDE, device)).accumulators
    accumulators = [values.cpu().numpy() for values in found]
    taps = [(tap.name, tap.channels) for tap in extractor.taps]
    statistics = BankStatistics.zeros(taps, CLASSES)
    labels = np.arange(5 * CLASSES) // 5
    statistics.update(accumulators, labels, np.ones(len(labels)))
    return statistics.finalise()


@torch.inference_mode()
def batched(extractor: Extractor, scorer: Scorer, pixels: Tensor) -> NDArray[np.int64]:
    """Return our predictions (N,), from one forward pass; all taps vote with both signs."""
    sums = scorer.borda_sums(extractor(pixels).accumulators, len(extractor.taps), "both")
    return sums.argmax(1).cpu().numpy()


def demo(network: nn.Module, bank: Bank, image: Tensor) -> int:
    """Return the demo's prediction for an image (1, 3, H, W)."""
    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    borda = np.zeros(bank.num_classes, np.int64)
    for layer, mixtures in zip(layers, bank.mixtures, strict=True):
        response = response_of(network, layer, image)
        flat = response.reshape(response.shape[1], -1)
        for sign, part in enumerate((np.maximum(flat, 0), np.maximum(-flat, 0))):
            shifted = part.sum(axis=1) + DELTA
            order = np.argsort(kl(mixtures[sign], shifted / shifted.sum()), kind="stable")
            borda[order] += np.arange(bank.num_classes - 1, -1, -1)
    return int(borda.argmax())


@torch.no_grad()
def response_of(network: nn.Module, layer: nn.Module, image: Tensor) -> NDArray[np.float64]:
    """Return the output of `layer` in one complete forward pass, (1, C, ...) float64."""
    kept: list[Tensor] = []
    # A copy, because in-place activations follow.
    hook = layer.register_forward_hook(lambda _m, _i, output: kept.append(output.clone()))
    network(image)
    hook.remove()
    return kept[0].double().cpu().numpy()


def kl(mixtures: NDArray[np.float64], pmf: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return KL(C_y || pmf) of every class, (M,), for mixtures (M, C) and a PMF (C,)."""
    logs = np.log(np.where(mixtures > 0, mixtures, 1.0)) - np.log(pmf)
    divergences: NDArray[np.float64] = np.sum(mixtures * logs, axis=1)
    return divergences


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print the table."""
    return command("released_demo", __doc__, items, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
