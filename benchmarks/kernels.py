"""The inner loops compared with other implementations: `python -m benchmarks.kernels`.

All on one thread of the CPU, because the other benchmarks use all of them:

- sums of positive and negative responses (kernels/sign_sums.py) over two clamps and two sums by
  torch, for responses of ResNet-50, channels-last and contiguous; and the GB/s of each;
- the ranking of 1000 classes (kernels/ranking.py) over torch's stable argsort and NumPy's, which
  is not stable; and nanoseconds per value of each;
- adding PMFs to a bank's sums (regroup/bank.py) over `np.add.at`; and nanoseconds per value;
- every voting rule over Borda, all k, 1000 classes and ResNet-50's taps;
- forward passes of the search for the smallest perturbation (PGD `minimal`), with 16 or all images
  at once, and the number of queries, which is the lower bound. Counts, not times. --weights FILE
  --images SOURCE [--model cifar-resnet20] attacks that network; by default a small network is
  trained on handwritten digits.

No row has a target: they support what the documentation says about these loops.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.attack_comparisons import EPSILON
from benchmarks.attack_subject import Subject, on_digits, on_images
from benchmarks.banks import random_accumulators, random_bank
from benchmarks.lower_bounds import PRODUCTS
from benchmarks.machine import torch_threads
from benchmarks.paired import Comparison, Contender, Fact, Item, Setting, Skipped, Taken, command
from benchmarks.scoring import resnet50_taps
from regroup.attacks.network import AttackedNetwork
from regroup.attacks.pgd.attack import PGD
from regroup.attacks.pgd.minimal import MinimalSearch
from regroup.bank import add_mixture, pmf
from regroup.kernels.ranking import ascending
from regroup.kernels.sign_sums import plain_sums, sign_sums
from regroup.scoring import Scorer
from regroup.voting import ELECTIONS, RuleScorer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

GIGA = 1e9
AGAIN = 10
AT_ONCE = 16  # what a CPU's batch holds


@dataclass(frozen=True)
class Size:
    """Sizes of a run.

    Attributes:
        responses: shapes (N, C, H, W) of the responses to sum.
        classes: number of classes in the ranking and the voting.
        ranked: rows to rank.
        added: samples to add to a bank, and their channels.
        voted: samples to vote on.
        taps: number of last taps that vote; None: all.
        images: images of the search.
        steps: steps of the search.
        bisections: bisections of the search.
    """

    responses: tuple[tuple[int, int, int, int], ...]
    classes: int
    ranked: int
    added: tuple[int, int]
    voted: int
    taps: int | None
    images: int
    steps: int
    bisections: int


SHAPES = ((8, 256, 56, 56), (8, 1024, 14, 14))
SIZES = {
    "tiny": Size(((2, 16, 8, 8),), 20, 8, (8, 16), 2, 3, 3, 2, 1),
    "small": Size(SHAPES, 1000, 500, (1000, 512), 24, None, 48, 10, 3),
    "full": Size(SHAPES, 1000, 2000, (5000, 512), 200, None, 48, 40, 20),
}


@dataclass
class Timed:
    """A function that measures the time of its runs.

    Attributes:
        work: what to run.
        times: runs per measurement, because some take only a millisecond.
        seconds: processor seconds per run, for each measurement.
    """

    work: Callable[[], object]
    times: int = 1
    seconds: list[float] = field(default_factory=list)

    def __call__(self) -> Taken:
        """Run it, and return the time of a single run."""
        wall, used = time.perf_counter(), time.process_time()
        for _ in range(self.times):
            self.work()
        used = (time.process_time() - used) / self.times
        self.seconds.append(used)
        return Taken((time.perf_counter() - wall) / self.times, None, used)

    @property
    def median(self) -> float:
        """Median of the processor seconds, without the first measurement."""
        return statistics.median(self.seconds[1:])


def on_cpu(count: int) -> Subject:
    """Return a network for handwritten digits."""
    return on_digits(count, "cpu")


def items(setting: Setting, given: Callable[[int], Subject] = on_cpu) -> Iterator[Item]:
    """Yield all loops.

    Args:
        setting: device, sizes and rounds.
        given: returns the network and a number of images for the search.
    """
    if setting.device != "cpu":
        yield Skipped("kernels", "they measure only the CPU: omit --device")
        return
    size = SIZES[setting.sizes]
    with torch_threads(1):
        yield from sums(size)
        yield from products(size)
        yield from ranking(size)
        yield from mixtures(size)
        yield rules(size)
        yield from passes(size, given(size.images))


# ---- the loops


def sums(size: Size) -> Iterator[Item]:
    """Yield the sums by sign of random responses."""
    for shape in size.responses:
        phi = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        for name, memory in (
            ("channels-last", torch.channels_last),
            ("contiguous", torch.contiguous_format),
        ):
            given = phi.contiguous(memory_format=memory)
            what = f"{name} {shape[1]} x {shape[2]} x {shape[3]}"
            ways = {
                "two clamps, two sums": Timed(partial(plain_sums, given, 1), AGAIN),
                "sign sums": Timed(partial(sign_sums, given, 1), AGAIN),
            }
            yield from _compared(what, ways)
            for way, timed in ways.items():
                speed = given.numel() * given.element_size() / timed.median / GIGA
                yield Fact(f"{way}, {what}: GB/s", speed, None)


def products(size: Size) -> Iterator[Item]:
    """Yield the products of scoring, 256 samples at a time, by torch's default and by oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        yield Skipped("products by oneDNN", "torch was built without it")
        return
    channels = max(shape[1] for shape in size.responses)
    values, weights = torch.rand(256, channels), torch.rand(size.classes, channels)
    ways = {
        f"products by {name}": Timed(partial(make(weights), values), AGAIN)
        for name, make in PRODUCTS.items()
    }
    yield from _compared(f"256 x {channels} by {channels} x {size.classes}", ways)
    for way, timed in ways.items():
        work = 2 * values.numel() * size.classes / GIGA
        yield Fact(f"{way}: GFLOP/s", work / timed.median, None)


def ranking(size: Size) -> Iterator[Item]:
    """Yield the ranking of rows of random values."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(size.ranked, size.classes, generator=generator)
    ways = {
        "torch's stable argsort": Timed(lambda: values.argsort(dim=1, stable=True)),
        "ranking": Timed(lambda: ascending(values)),
        "torch's argsort": Timed(lambda: values.argsort(dim=1)),
        "NumPy's argsort": Timed(lambda: np.argsort(values.numpy(), axis=1)),
        "NumPy's stable argsort": Timed(lambda: np.argsort(values.numpy(), axis=1, kind="stable")),
    }
    yield from _compared(f"{size.classes} classes", ways)
    yield from _nanoseconds(ways, values.numel())


def mixtures(size: Size) -> Iterator[Item]:
    """Yield the addition of samples to a bank's sums."""
    samples, channels = size.added
    random = np.random.default_rng(0)
    accumulators = random.lognormal(size=(samples, 2, channels)).astype(np.float32)
    labels, weights = random.integers(0, size.classes, samples), random.random(samples)
    total = np.zeros((2, size.classes, channels))

    def literally() -> None:
        """Add PMFs times weights, row by row."""
        for sign in (0, 1):
            rows = weights[:, None] * pmf(accumulators[:, sign])
            np.add.at(total[sign], labels, rows)

    ways = {
        "PMFs and np.add.at": Timed(literally),
        "adding to a bank": Timed(lambda: add_mixture(total, accumulators, labels, weights)),
    }
    yield from _compared(f"{channels} channels", ways)
    yield from _nanoseconds(ways, accumulators.size)


def rules(size: Size) -> Comparison:
    """Return the votes for all k and sign choices by each rule, over the same by Borda."""
    bank = random_bank(resnet50_taps("preactivation")[-(size.taps or 0) :], size.classes)
    accumulators, labels = random_accumulators(bank, size.voted, "cpu")
    scorers = {"borda": Scorer(bank)} | {
        rule: RuleScorer(bank, rule, [1] * len(bank.taps) if rule == "weighted-borda" else None)
        for rule in ELECTIONS
    }
    ways = {name: partial(scorer.votes, accumulators, labels) for name, scorer in scorers.items()}
    contenders = tuple(
        Contender(
            f"votes by {name}, {len(bank.taps)} taps, {size.classes} classes",
            Timed(way),
            samples=size.voted,
        )
        for name, way in ways.items()
        if name != "borda"
    )
    return Comparison("votes by Borda", Timed(ways["borda"]), contenders, size.voted)


def passes(size: Size, subject: Subject) -> Iterator[Fact]:
    """Yield the images that go through the network in a search, by number of images at once."""
    spec = PGD(epsilon=EPSILON, steps=size.steps, bisections=size.bisections)
    for at_once in sorted({min(AT_ONCE, size.images), size.images}):
        went, queries = searched(spec, subject, at_once)
        notes: dict[str, object] = {"network": subject.model.name, "queries": queries}
        what = f"passes, search of {size.images} images, {at_once} at once"
        yield Fact(what, went, None, notes)
    yield Fact(f"queries, search of {size.images} images", queries, None)


def searched(spec: PGD, subject: Subject, at_once: int) -> tuple[int, int]:
    """Return the images that the network processed, with padding, and those that were requested."""
    seen = 0

    def count(_: object, given: tuple[Tensor, ...]) -> None:
        """Count the images of a forward pass."""
        nonlocal seen
        seen += len(given[0])

    hook, queries = subject.model.register_forward_pre_hook(count), 0
    network = AttackedNetwork(subject.model, subject.rows)
    for first in range(0, len(subject.pixels), at_once):
        found = MinimalSearch(spec, network, subject.part(first, first + at_once).batch).run()
        queries += int(found.queries.sum())
    hook.remove()
    return seen, queries


# ---- rows


def _compared(what: str, ways: dict[str, Timed]) -> Iterator[Comparison]:
    (baseline, run), *others = ways.items()
    contenders = tuple(Contender(f"{name}, {what}", way, None, "gain") for name, way in others)
    yield Comparison(baseline, run, contenders)


def _nanoseconds(ways: dict[str, Timed], values: int) -> Iterator[Fact]:
    for name, timed in ways.items():
        yield Fact(f"{name}: ns a value", timed.median * GIGA / values, None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model", default="cifar-resnet20")
    parser.add_argument("--weights")
    parser.add_argument("--images")
    options, rest = parser.parse_known_args(arguments)
    if bool(options.weights) != bool(options.images):
        parser.error("--weights and --images go together")

    def given(count: int) -> Subject:
        """Return the requested network with `count` images."""
        if not options.weights:
            return on_cpu(count)
        return on_images(options.model, options.weights, options.images, count, "cpu")

    return command("kernels", __doc__, partial(items, given=given), rest)


if __name__ == "__main__":
    raise SystemExit(main())
