"""The gain from keeping freed memory: `python -m benchmarks.allocator`.

Two processes run the same passes alternately. One keeps the memory that it frees, as the workers
of `regroup` do (`regroup.kernels.allocator`); the other leaves malloc unmodified. Forward passes as
in extraction, and passes with the gradient with respect to the pixels as in attacks. Random
weights, float32, channels-last, one thread. The page faults per pass of both are rows too.

CPU only: torch manages a GPU's memory itself.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from benchmarks.paired import Comparison, Contender, Fact, Item, Setting, Skipped, Taken, command
from regroup.kernels.allocator import keep_freed_memory
from regroup_cluster.dispatch.stopwatch import peak_rss_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class Passes:
    """Passes of a network over one batch.

    Attributes:
        network: name of the network.
        rows: images in the batch.
        side: width and height of the images, in px.
        passes: number of passes.
        gradient: whether each pass computes the gradient with respect to the pixels.
    """

    network: str
    rows: int
    side: int
    passes: int = 1
    gradient: bool = False

    @property
    def what(self) -> str:
        """The row's name."""
        gradient = ", gradient" if self.gradient else ""
        return f"{self.network}, batch {self.rows}, {self.side} px{gradient}"


SIZES = {
    "tiny": (Passes("resnet50", 2, 32), Passes("resnet50", 2, 32, gradient=True)),
    "small": (
        Passes("resnet50", 8, 224),
        Passes("resnet50", 32, 224),
        Passes("resnet50", 16, 224, gradient=True),
        Passes("vgg19", 2, 224),
    ),
    "full": (
        Passes("resnet50", 64, 224, 2),
        Passes("resnet50", 32, 224, gradient=True),
        Passes("vgg19", 16, 224, 2),
        Passes("vgg19", 16, 224, gradient=True),
    ),
}


def items(setting: Setting) -> Iterator[Item]:
    """Yield a comparison and the page faults for each network."""
    if setting.device != "cpu":
        yield Skipped("allocator", "it measures only the CPU: omit --device")
        return
    for passes in SIZES[setting.sizes]:
        with one_process(keep=True) as kept, one_process(keep=False) as given_back:
            ours = Contender(
                f"{passes.what}: freed memory kept", partial(kept, passes), None, "gain"
            )
            yield Comparison("given back", partial(given_back, passes), (ours,))
            for name, each in (("kept", kept), ("given back", given_back)):
                yield Fact(f"{passes.what}: page faults a pass, {name}", each.faults(passes), None)


class Process:
    """A process that runs passes."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def __call__(self, passes: Passes) -> Taken:
        """Run the passes in that process and return what they took."""
        return Taken(*self._pool.submit(_run, passes).result()[:3])

    def faults(self, passes: Passes) -> float:
        """Count the page faults per pass."""
        faults: int = self._pool.submit(_run, passes).result()[3]
        return faults / passes.passes


@contextmanager
def one_process(*, keep: bool) -> Iterator[Process]:
    """Start a process, and end it on exit."""
    context: Any = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_begin, initargs=(keep,)) as pool:
        yield Process(pool)


def _begin(keep: bool) -> None:
    import torch

    torch.set_num_threads(1)
    if keep:
        keep_freed_memory()


def _run(passes: Passes) -> tuple[float, int, float, int]:
    """Return seconds, peak bytes, processor seconds and page faults of the passes."""
    import torch

    model, pixels = _network(passes)
    before, started, used = _faults(), time.perf_counter(), time.process_time()
    for _ in range(passes.passes):
        if passes.gradient:
            model(pixels.clone().requires_grad_()).sum().backward()
        else:
            with torch.inference_mode():
                model(pixels)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    return seconds, peak_rss_bytes(), used, _faults() - before


@cache
def _network(passes: Passes) -> tuple[Any, Any]:
    from benchmarks.networks import classifier, noise
    from regroup.models.compute import Compute

    compute = Compute(channels_last=True)
    model = classifier(passes.network, "cpu", passes.side, compute=compute).requires_grad_(False)
    return model, noise(passes.rows, passes.side, "cpu")


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print the table."""
    return command("allocator", __doc__, items, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
