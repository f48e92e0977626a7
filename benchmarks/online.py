"""REGroup as a classifier beside the bare network: `python -m benchmarks.online`.

`REGroupClassifier` with k = 5 (the paper's; taps that do not vote are not tapped) against the same
ResNet-50, one image at a time and 64: at most 2 and 1.3 times the bare forward pass. The paper's
own code takes 5 to 6.5 times as long as softmax. Exit status 1 where a target is missed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from benchmarks.alternating import Case, Skipped, parsed, parser, run
from benchmarks.networks import formats, network, pixels, random_bank
from regroup.classifier import REGroupClassifier
from regroup.taps import discover_taps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from benchmarks.networks import Format

K = 5
TARGETS = {1: 2.0, 64: 1.3}
SIZES = {"small": ("resnet50", 224), "tiny": ("squeezenet1_1", 64)}


@torch.inference_mode()
def _predict(model: nn.Module, images: Tensor) -> object:
    return model(images)


def cases(name: str, side: int, form: Format, device: str) -> Iterator[Case]:
    """One image and 64 of them."""
    model = network(name, device, form.memory)
    example = pixels(1, side, device, form.memory)
    taps = discover_taps(model, example, "preactivation")
    bank = random_bank([(tap.name, tap.channels) for tap in taps])
    robust = REGroupClassifier(model, bank, K, example=example)
    for batch, target in TARGETS.items():
        images = pixels(batch, side, device, form.memory)
        what = f"{name}, {form.name}, batch {batch}"
        ours, bare = partial(_predict, robust, images), partial(_predict, model, images)
        yield Case(what, "bare network", ours, bare, target, "lower", batch, batch)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons; the table goes to standard output."""
    options = parsed(parser("online", __doc__, list(SIZES)), arguments)
    name, side = SIZES[options.sizes]

    def found() -> Iterator[Case | Skipped]:
        try:
            for form in formats(options.device):
                if form.dtype is None and not form.tf32:
                    yield from cases(name, side, form, options.device)
        except ImportError as error:
            yield Skipped("everything", str(error))

    return run(options, found(), {"k": K})


if __name__ == "__main__":
    raise SystemExit(main())
