"""Against the released demo's way of computing: `python -m benchmarks.demo_way`.

The method as its description reads (paper, Algorithm 1, eqs. 2, 3, 6, 7): for every image and every
layer one forward pass, from which that layer's response is taken; its accumulators, PMFs and
divergences from all classes one layer at a time in NumPy; ranks, Borda sums. Against `Extractor`
and `Scorer` on a batch of the same images: at least 20 times as fast on a CPU, 500 times on a GPU.
The network is a VGG-19 for 32-px images with 10 classes and the taps of `linear`. Predictions have
to agree. Exit status 1 where a target is missed. Needs torch, torchvision and NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from benchmarks.alternating import Case, Skipped, parsed, parser, run
from benchmarks.networks import pixels, random_bank
from regroup.accumulators import Extractor
from regroup.bank import DELTA
from regroup.scoring import Scorer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

TARGETS = {"cpu": 20.0, "cuda": 500.0}
CLASSES = 10


@dataclass(frozen=True)
class Sizes:
    """torchvision's network; images a batch of ours, on a CPU and on a GPU; images of the demo."""

    network: str
    cpu: int
    gpu: int
    one_by_one: int


SIZES = {"small": Sizes("vgg19", 128, 1024, 2), "tiny": Sizes("vgg11", 2, 2, 1)}


def small_vgg(name: str, device: str) -> nn.Module:
    """A VGG for 32-px images: its convolutions, and one linear layer."""
    from torchvision import models

    torch.manual_seed(0)
    features: nn.Module = getattr(models, name)(weights=None).features
    network = nn.Sequential(features, nn.Flatten(), nn.Linear(512, CLASSES))
    return network.eval().requires_grad_(False).to(device)


class Subject:
    """One network, its bank and its images, and both ways to the predictions."""

    def __init__(self, sizes: Sizes, device: str) -> None:
        self.sizes, self.device = sizes, device
        self.model = small_vgg(sizes.network, device)
        count = sizes.cpu if device == "cpu" else sizes.gpu
        self.images = pixels(count, 32, device, torch.contiguous_format)
        self.extractor = Extractor(self.model, "linear", self.images[:1])
        self.bank = random_bank([(t.name, t.channels) for t in self.extractor.taps], CLASSES)
        self.scorer = Scorer(self.bank, device=device)

    @cached_property
    def layers(self) -> list[nn.Module]:
        """What is tapped, in execution order."""
        return [m for m in self.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]

    @torch.inference_mode()
    def batch(self) -> NDArray[Any]:
        """All images at once; predictions (N,)."""
        accumulators = self.extractor(self.images).accumulators
        sums = self.scorer.borda_sums(accumulators, len(self.layers), "both")
        return sums.argmax(1).cpu().numpy()

    def one_by_one(self) -> NDArray[Any]:
        """The first images, one after the other, one forward pass a layer."""
        found = [self._predict(self.images[i : i + 1]) for i in range(self.sizes.one_by_one)]
        return np.array(found)

    def _predict(self, image: Tensor) -> int:
        total = np.zeros(CLASSES, np.int64)
        for layer, mixtures in zip(self.layers, self.bank.mixtures, strict=True):
            response = self._response(layer, image)
            for sign, part in enumerate((response, -response)):
                summed = np.maximum(part, 0).reshape(part.shape[0], -1).sum(1)
                total += CLASSES - 1 - _ranks(divergences(mixtures[sign], summed))
        return int(total.argmax())

    @torch.inference_mode()
    def _response(self, layer: nn.Module, image: Tensor) -> NDArray[np.float64]:
        """A layer's response to one image, (C, ...), by a forward pass of its own."""
        kept: list[Tensor] = []
        handle = layer.register_forward_hook(lambda *call: kept.append(call[2].clone()))
        self.model(image)
        handle.remove()
        return kept[0][0].cpu().double().numpy()


def divergences(mixtures: NDArray[np.float64], summed: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(C_y || pmf(x)) of every class, (M,), from mixtures (M, C) and sums (C,)."""
    pmf = (summed + DELTA) / (summed + DELTA).sum()
    return np.array([np.sum(mixture * np.log(mixture / pmf)) for mixture in mixtures])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    ranks = np.empty(len(values), np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks


def case(subject: Subject) -> Case:
    """Seconds an image, both ways."""
    device = "cpu" if subject.device == "cpu" else "cuda"
    return Case(
        what=f"{subject.sizes.network}, 32 px, {len(subject.layers)} layers",
        against="one pass a layer",
        ours=subject.batch,
        baseline=partial(subject.one_by_one),
        target=TARGETS[device],
        better="higher",
        per_ours=len(subject.images),
        per_baseline=subject.sizes.one_by_one,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; the table goes to standard output."""
    options = parsed(parser("demo_way", __doc__, list(SIZES)), arguments)
    agree: list[bool] = []

    def found() -> Iterator[Case | Skipped]:
        try:
            subject = Subject(SIZES[options.sizes], options.device)
        except ImportError as error:
            yield Skipped("everything", str(error))
            return
        theirs = subject.one_by_one()
        agree.append(bool((subject.batch()[: len(theirs)] == theirs).all()))
        yield case(subject)

    status = run(options, found(), {"predictions_agree": agree})
    print(f"predictions agree: {all(agree)}")
    return status or int(not all(agree))


if __name__ == "__main__":
    raise SystemExit(main())
