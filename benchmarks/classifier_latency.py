"""REGroup as a classifier over the bare network: `python -m benchmarks.classifier_latency`.

ResNet-50 with random weights, `REGroupClassifier` with k = 5, 1000 classes, at batch 1 and 64,
float32, channels-last; both tap policies, with `--sizes small` only the default one. Ratio: our
seconds over the bare network's, at most 2.0 at batch 1 and 1.3 at batch 64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import torch

from benchmarks.banks import random_bank
from benchmarks.networks import classifier, noise
from benchmarks.paired import Comparison, Contender, Item, Setting, command
from regroup.classifier import REGroupClassifier
from regroup.models.compute import Compute
from regroup.taps import TapPolicy, discover_taps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from regroup.models import Classifier

K = 5


@dataclass(frozen=True)
class Size:
    """Sizes of a run.

    Attributes:
        side: width and height of the images, in px.
        classes: number of classes.
        batches: (batch, passes per run, target).
        policies: tap policies.
    """

    side: int
    classes: int
    batches: tuple[tuple[int, int, float], ...]
    policies: tuple[TapPolicy, ...] = get_args(TapPolicy)


SIZES = {
    "tiny": Size(32, 10, ((1, 1, 2.0), (2, 1, 1.3))),
    "small": Size(224, 1000, ((1, 8, 2.0), (64, 1, 1.3)), ("preactivation",)),
    "full": Size(224, 1000, ((1, 50, 2.0), (64, 5, 1.3))),
}


def items(setting: Setting) -> Iterator[Item]:
    """Yield one comparison per batch size."""
    size, compute = SIZES[setting.sizes], Compute(channels_last=True)
    compute.set_tf32()
    model = classifier("resnet50", setting.device, size.side, classes=size.classes, compute=compute)
    example = noise(2, size.side, setting.device)
    voters = {policy: _voter(model, policy, example) for policy in size.policies}
    for batch, passes, target in size.batches:
        pixels, samples = noise(batch, size.side, setting.device), batch * passes
        notes: dict[str, object] = {"batch": batch, "passes": passes}
        contenders = tuple(
            Contender(
                f"k = {K}, batch {batch}, {policy}",
                _repeated(voter, pixels, passes),
                target,
                samples=samples,
                notes=notes,
            )
            for policy, voter in voters.items()
        )
        bare = _repeated(model, pixels, passes)
        yield Comparison("bare network", bare, contenders, samples)


def _voter(model: Classifier, policy: TapPolicy, example: Tensor) -> REGroupClassifier:
    taps = discover_taps(model, example, policy)[-K:]
    bank = random_bank([(tap.name, tap.channels) for tap in taps], model.num_classes)
    return REGroupClassifier(model, bank, K, policy=policy, example=example)


def _repeated(model: nn.Module, pixels: Tensor, passes: int) -> Callable[[], object]:
    @torch.inference_mode()
    def run() -> None:
        """Run the forward passes, one after the other."""
        for _ in range(passes):
            model(pixels)

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print the table."""
    return command("classifier_latency", __doc__, items, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
