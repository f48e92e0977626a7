"""Extraction over the bare forward pass: `python -m benchmarks.extraction [--device cuda]`.

ResNet-50 and VGG-19 with random weights, both tap policies. CPU: float32, channels-last and
contiguous, on all cores; channels-last also with one thread, as in each worker of `regroup`. GPU:
fp32, TF32 and bf16 (autocast), channels-last. The baseline is the same network on the same batch
without taps. Ratio: our seconds over the baseline's, at most 1.10 for both policies. "former" has
the same taps, and sums each response with two clamps and two sums of torch.

The largest relative error of any sum, compared with float64 sums of the same responses, is a
separate row: at most 1e-5. A sum that is zero in float64 must be zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import torch

from benchmarks.machine import torch_threads
from benchmarks.networks import classifier, noise
from benchmarks.paired import Comparison, Contender, Fact, Item, Setting, Skipped, command
from regroup.accumulators import Extractor
from regroup.kernels.allocator import keep_freed_memory
from regroup.kernels.sign_sums import compiled_sign_kernels, plain_sums, sign_sums
from regroup.models.compute import Compute
from regroup.taps import TapPolicy, TapRecorder, plan_taps, respond

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from regroup.models import Classifier

TARGET, ERROR = 1.10, 1e-5
BOTH = ("channels-last", "contiguous")


@dataclass(frozen=True)
class Size:
    """Sizes of a run.

    Attributes:
        side: width and height of the images, in px.
        networks: (network, samples per batch, memory formats on a CPU).
    """

    side: int
    networks: tuple[tuple[str, int, tuple[str, ...]], ...]


SIZES = {
    "tiny": Size(32, (("resnet50", 2, BOTH),)),
    "small": Size(224, (("resnet50", 8, BOTH), ("vgg19", 2, ("channels-last",)))),
    "full": Size(224, (("resnet50", 64, BOTH), ("vgg19", 32, BOTH))),
}
CPU = {
    "channels-last": Compute(channels_last=True),
    "contiguous": Compute(),
}
CUDA = {
    "fp32": Compute(channels_last=True),
    "TF32": Compute(channels_last=True, tf32=True),
    "bf16": Compute("bf16", channels_last=True),
}


def items(setting: Setting) -> Iterator[Item]:
    """Yield the comparison and the error of each policy, for every network and format."""
    size, on_cpu = SIZES[setting.sizes], setting.device == "cpu"
    keep_freed_memory()  # as in a worker
    if on_cpu and compiled_sign_kernels() is None:
        yield Skipped(
            "the compiled sums",
            "Numba is not installed: torch computes the sums, as in the former way",
        )
    for name, rows, formats in size.networks:
        for format_name in formats if on_cpu else CUDA:
            compute = (CPU if on_cpu else CUDA)[format_name]
            compute.set_tf32()
            model = classifier(name, setting.device, size.side, compute=compute)
            what, pixels = f"{name}, {format_name}", noise(rows, size.side, setting.device)
            yield _comparison(what, model, pixels)
            if on_cpu and compute.channels_last:
                with torch_threads(1):
                    yield _comparison(f"{what}, one thread", model, pixels, former=False)
            for policy in get_args(TapPolicy):
                error = largest_error(model, policy, pixels[:2])
                yield Fact(f"{what}, {policy}: relative error", error, ERROR)


def _comparison(what: str, model: Classifier, pixels: Tensor, *, former: bool = True) -> Comparison:
    notes: dict[str, object] = {"batch": len(pixels), "side": pixels.shape[-1]}
    contenders: list[Contender] = []
    for policy in get_args(TapPolicy):
        ours, label = Extractor(model, policy, pixels), f"{what}, {policy}"
        contenders.append(
            Contender(label, _quietly(ours, pixels), TARGET, samples=len(pixels), notes=notes)
        )
        if former:
            way = former_way(model, policy, pixels)
            contenders.append(Contender(f"{label}, former", way, samples=len(pixels), notes=notes))
    bare = _quietly(model, pixels)
    return Comparison("bare forward pass", bare, tuple(contenders), len(pixels))


def _quietly(function: Callable[[Tensor], object], pixels: Tensor) -> Callable[[], object]:
    @torch.inference_mode()
    def run() -> object:
        """Run one forward pass without gradients."""
        return function(pixels)

    return run


def former_way(model: Classifier, policy: TapPolicy, pixels: Tensor) -> Callable[[], object]:
    """Return an extraction with the same taps that sums each response by `plain_sums`."""
    plan = plan_taps(model, pixels, policy)

    def extract(pixels: Tensor) -> object:
        """Return the logits and the sums of every response."""
        sums: list[Tensor] = []

        def receive(index: int, response: Tensor) -> None:
            """Receive the response of tap `index`."""
            sums.append(plain_sums(response, plan.taps[index].channel_axis))

        with TapRecorder(plan, len(pixels), receive):
            logits = respond(model, pixels)
        return logits, sums

    return _quietly(extract, pixels)


@torch.inference_mode()
def largest_error(model: Classifier, policy: TapPolicy, pixels: Tensor) -> float:
    """Return the largest relative error of `sign_sums` over taps, signs, samples and channels."""
    plan = plan_taps(model, pixels, policy)
    errors: list[float] = []

    def receive(index: int, response: Tensor) -> None:
        """Receive the response of tap `index`."""
        errors.append(relative_error(response, plan.taps[index].channel_axis))

    with TapRecorder(plan, len(pixels), receive):
        respond(model, pixels)
    return max(errors)


def relative_error(response: Tensor, channel_axis: int) -> float:
    """Return the largest relative error for one response; infinite if an exact zero is missed."""
    found = sign_sums(response, channel_axis).double()
    axes = [axis for axis in range(1, response.dim()) if axis != channel_axis]
    exact = response.double()
    parts = [exact.clamp(min=0), -exact.clamp(max=0)]
    expected = torch.stack([part.sum(axes) if axes else part for part in parts], dim=1)
    off = (found - expected).abs()
    return float(torch.where(off == 0, 0.0, off / expected).max())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print the table."""
    return command("extraction", __doc__, items, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
