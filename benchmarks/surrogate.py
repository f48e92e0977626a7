"""REGroup's surrogates over the bare network: `python -m benchmarks.surrogate`.

Forward and backward pass of ResNet-50 with random weights, 1000 classes, k = 5, both signs,
float32, channels-last, in batches of 16 as an attack has them on a CPU: the gradient of a margin of
each surrogate, and the vote that decides, over the gradient of the same margin of the logits: at
most 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.banks import random_bank
from benchmarks.networks import classifier, noise
from benchmarks.paired import Comparison, Contender, Item, Setting, command
from regroup.attacks.losses import margin_loss
from regroup.attacks.network import AttackedNetwork
from regroup.defenses.regroup import DefendedByREGroup, REGroup
from regroup.defenses.spec import Material
from regroup.models.compute import Compute
from regroup.taps import discover_taps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from regroup.models import Classifier

K, TARGET = 5, 1.5


@dataclass(frozen=True)
class Size:
    """Sizes of a run.

    Attributes:
        side: width and height of the images, in px.
        classes: number of classes.
        batch: images in each pass.
    """

    side: int
    classes: int
    batch: int


SIZES = {"tiny": Size(32, 10, 2), "small": Size(224, 1000, 16), "full": Size(224, 1000, 64)}


def items(setting: Setting) -> Iterator[Item]:
    """Yield the comparison of all surrogates with the bare network."""
    size, compute = SIZES[setting.sizes], Compute(channels_last=True)
    compute.set_tf32()
    model = classifier("resnet50", setting.device, size.side, classes=size.classes, compute=compute)
    pixels = noise(size.batch, size.side, setting.device)
    labels = model(pixels).argmax(dim=1)
    targets = labels.new_full(labels.shape, -1)
    robust = _robust(model, pixels[:2])
    contenders = tuple(
        Contender(
            f"k = {K}, {surrogate}",
            partial(
                _climb,
                AttackedNetwork(robust, size.batch, surrogate=surrogate),
                pixels,
                labels,
                targets,
            ),
            TARGET,
            samples=size.batch,
        )
        for surrogate in robust.surrogates
    )
    bare = partial(_climb, AttackedNetwork(model, size.batch), pixels, labels, targets)
    yield Comparison("bare network, forward and backward", bare, contenders, size.batch)


def _robust(model: Classifier, example: Tensor) -> DefendedByREGroup:
    taps = discover_taps(model, example, "preactivation")
    bank = random_bank([(tap.name, tap.channels) for tap in taps[-K:]], model.num_classes)
    material = Material(example, bank, np.ones((K, 2)))
    return DefendedByREGroup(model, REGroup(k=K), material).to(example.device)


def _climb(network: AttackedNetwork, pixels: Tensor, labels: Tensor, targets: Tensor) -> None:
    network.ascent(pixels, margin_loss, labels, targets)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print the table."""
    return command("surrogate", __doc__, items, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
