"""What accumulators cost beside the bare forward pass: `python -m benchmarks.extraction`.

`Extractor` against the same network, batch, precision and memory format without it, both tap
policies, ResNet-50 and VGG-19 at 224 px; at most 1.10 of the bare pass. For comparison, without a
target: the plain way, two clamps and two sums of every response. And the largest relative error of
the sums against float64 sums of the same responses, at most 1e-5. Exit status 1 where a target is
missed. Needs torch, torchvision and NumPy; without Numba a CPU sums the plain way.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from unittest import mock

import torch

from benchmarks.alternating import Case, Skipped, parsed, parser, run
from benchmarks.networks import formats, network, pixels
from regroup import accumulators, sign_sums
from regroup.accumulators import Extractor
from regroup.taps import TAP_POLICIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from benchmarks.networks import Format
    from regroup.taps import TapPolicy

TARGET, LARGEST_ERROR = 1.10, 1e-5


@dataclass(frozen=True)
class Sizes:
    """Networks, the batch of each on a CPU, on a GPU, and the images' side in px."""

    networks: tuple[str, ...]
    cpu: int
    gpu: int
    side: int


SIZES = {
    "small": Sizes(("resnet50", "vgg19"), 16, 128, 224),
    "tiny": Sizes(("squeezenet1_1",), 2, 2, 64),
}


@dataclass(frozen=True)
class Subject:
    """One network in one format, and its images."""

    name: str
    model: nn.Module
    images: Tensor
    format: Format

    @torch.inference_mode()
    def run(self, module: nn.Module | Extractor) -> object:
        """One forward pass."""
        with self._precision():
            return module(self.images)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.format.tf32
        device, dtype = self.images.device.type, self.format.dtype
        with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
            yield
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept

    def plain(self, extractor: Extractor) -> object:
        """One forward pass whose responses are clamped and summed twice."""
        with mock.patch.object(accumulators, "sign_sums", sign_sums.plain_sums):
            return self.run(extractor)

    def error(self, policy: TapPolicy) -> float:
        """The largest relative error of a sum, where the sum is not zero."""
        errors = []

        def compare(phi: Tensor, axis: int) -> Tensor:
            """Both sums, the difference noted."""
            found, exact = sign_sums.sign_sums(phi, axis), sign_sums.plain_sums(phi.double(), axis)
            there = exact > 1e-30
            errors.append(float(((found - exact).abs() / exact)[there].max()) if there.any() else 0)
            return found

        with mock.patch.object(accumulators, "sign_sums", compare):
            self.run(Extractor(self.model, policy, self.images[:1]))
        return max(errors)


def subjects(sizes: Sizes, device: str) -> Iterator[Subject]:
    """Every network in every format, one at a time."""
    batch = sizes.cpu if device == "cpu" else sizes.gpu
    for name in sizes.networks:
        for form in formats(device):
            model = network(name, device, form.memory)
            yield Subject(name, model, pixels(batch, sizes.side, device, form.memory), form)


def cases(subject: Subject) -> Iterator[Case]:
    """Both policies against the bare pass, and the plain way."""
    for policy in TAP_POLICIES:
        what = f"{subject.name}, {policy}, {subject.format.name}"
        extractor = Extractor(subject.model, policy, subject.images[:1])
        bare = partial(subject.run, subject.model)
        yield Case(what, "bare forward pass", partial(subject.run, extractor), bare, TARGET)
        plain = partial(subject.plain, extractor)
        yield Case(f"{what}, plain", "bare forward pass", plain, bare, None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons; the table goes to standard output."""
    options = parsed(parser("extraction", __doc__, list(SIZES)), arguments)
    sizes, errors = SIZES[options.sizes], dict[str, float]()

    def found() -> Iterator[Case | Skipped]:
        try:
            for subject in subjects(sizes, options.device):
                for policy in TAP_POLICIES:
                    where = f"{subject.name}, {policy}, {subject.format.name}"
                    errors[where] = subject.error(policy)
                yield from cases(subject)
        except ImportError as error:
            yield Skipped("everything", str(error))

    status = run(options, found(), {"largest_relative_error": errors, "numba": _numba()})
    for where, error in errors.items():
        print(f"largest relative error, {where}: {error:.1e}")
    return status or int(any(error > LARGEST_ERROR for error in errors.values()))


def _numba() -> bool:
    return sign_sums.kernels() is not None


if __name__ == "__main__":
    raise SystemExit(main())
