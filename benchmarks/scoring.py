"""Scoring over its lower bound: `python -m benchmarks.scoring [--device cuda]`.

ResNet-50's taps under both policies, 1000 classes, 2000 samples.

- `Scorer.votes`, all taps, over the lower bound: the bare float32 matrix product and one argsort
  per voter, on all cores. The bound uses the fastest ways to multiply and sort on this machine,
  which are determined first and named in the table. At most 1.5.
- all k and all three sign choices (`votes`) over one k and one choice (`borda_sums`): at most 1.3.

Predictions are compared with those of float64 for every k, choice and tap, and differences are
counted. A difference is a tie if float32 inverts only classes of a voter whose divergences differ
by less than 1e-6 of their size. There may be no other differences.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch

from benchmarks.banks import random_accumulators, random_bank
from benchmarks.lower_bounds import ORDERS, PRODUCTS
from benchmarks.networks import build, noise
from benchmarks.paired import Comparison, Contender, Fact, Item, Setting, command
from regroup.kernels.allocator import keep_freed_memory
from regroup.scoring import Scorer
from regroup.taps import TapPolicy, discover_taps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from regroup.bank import Bank

OVER_FLOOR, OVER_ONE_K, TIE = 1.5, 1.3, 1e-6


@dataclass(frozen=True)
class Size:
    """Sizes of a run.

    Attributes:
        classes: number of classes.
        samples: samples to score.
        compared: samples to compare with float64.
        taps: number of last taps; None: all.
    """

    classes: int
    samples: int
    compared: int
    taps: int | None = None


SIZES = {
    "tiny": Size(20, 8, 4, 5),
    "small": Size(1000, 2000, 64),
    "full": Size(1000, 2000, 512),
}


def items(setting: Setting) -> Iterator[Item]:
    """Yield the two comparisons and the differences from float64 for both policies."""
    size, device = SIZES[setting.sizes], setting.device
    keep_freed_memory()  # as in a worker
    product, order = fastest_product(size, device), fastest_order(size, device)
    for policy in get_args(TapPolicy):
        bank = random_bank(resnet50_taps(policy)[-(size.taps or 0) :], size.classes)
        accumulators, labels = random_accumulators(bank, size.samples, device)
        scorer = Scorer(bank, device=device)
        notes: dict[str, object] = {"taps": len(bank.taps), "samples": size.samples}

        def votes(
            scorer: Scorer = scorer, given: list[Tensor] = accumulators, labels: Tensor = labels
        ) -> object:
            """Score every k, every sign choice and each tap alone."""
            return scorer.votes(given, labels)

        ours = Contender(f"votes, {policy}", votes, OVER_FLOOR, samples=size.samples, notes=notes)
        floor, ways = bare(bank, size.samples, device, product, order), f"{product}, {order}"
        yield Comparison(f"products, argsorts: {ways}", floor, (ours,), size.samples)
        every = Contender(
            f"every k and choice, {policy}", votes, OVER_ONE_K, samples=size.samples, notes=notes
        )
        yield Comparison("one k, one choice", _one(scorer, accumulators), (every,), size.samples)
        yield differences(bank, scorer, accumulators, labels, size.compared, policy)


def resnet50_taps(policy: TapPolicy) -> tuple[tuple[str, int], ...]:
    """Return (name, channels) of ResNet-50's taps, in execution order."""
    taps = discover_taps(build("resnet50"), noise(1, 64, "cpu"), policy)
    return tuple((tap.name, tap.channels) for tap in taps)


def _one(scorer: Scorer, accumulators: list[Tensor]) -> Callable[[], object]:
    return lambda: scorer.borda_sums(accumulators, len(accumulators), "both")


def fastest_order(size: Size, device: str) -> str:
    """Return the name in `ORDERS` of the fastest way to sort (samples, classes) here."""
    values = torch.rand(size.samples, size.classes, device=device)
    ways = [name for name in ORDERS if device == "cpu" or name.startswith("torch")]
    return min(ways, key=lambda name: _seconds(lambda: ORDERS[name](values), device))


def fastest_product(size: Size, device: str) -> str:
    """Return the name in `PRODUCTS` of the fastest way to multiply by (classes, 1024) weights."""
    values = torch.rand(size.samples, 1024, device=device)
    weights = torch.rand(size.classes, 1024, device=device)
    onednn = device == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    ways = {name: make(weights) for name, make in PRODUCTS.items() if onednn or name == "torch"}
    return min(ways, key=lambda name: _seconds(lambda: ways[name](values), device))


def _seconds(run: Callable[[], object], device: str) -> float:
    taken = []
    for _ in range(4):  # the first to warm up
        started = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def bare(bank: Bank, samples: int, device: str, product: str, order: str) -> Callable[[], object]:
    """Return the lower bound: float32 products of given log PMFs and the sorting, per voter."""
    channels = [mixtures.shape[2] for mixtures in bank.mixtures]
    inputs = {
        size: (
            torch.rand(samples, size, device=device),
            PRODUCTS[product](torch.rand(bank.num_classes, size, device=device)),
        )
        for size in set(channels)
    }

    def run() -> None:
        """Multiply and sort for both signs of every tap."""
        for size in channels:
            for _ in range(2):
                left, multiply = inputs[size]
                ORDERS[order](multiply(left))

    return run


def differences(
    bank: Bank,
    scorer: Scorer,
    accumulators: list[Tensor],
    labels: Tensor,
    compared: int,
    policy: TapPolicy,
) -> Fact:
    """Count the samples whose predictions differ from float64's for other reasons than ties."""
    exact = Scorer(bank, device=labels.device, dtype=torch.float64)
    given, truth = [a[:compared] for a in accumulators], labels[:compared]
    ours, theirs = scorer.votes(given, truth), exact.votes(given, truth)
    unequal = np.concatenate(
        (ours.prediction != theirs.prediction, ours.tap_prediction != theirs.tap_prediction), axis=2
    )
    samples = np.flatnonzero(unequal.any(axis=(1, 2)))
    gaps = inversions(scorer.divergences(given), exact.divergences(given))[samples]
    notes: dict[str, object] = {
        "samples_compared": compared,
        "predictions": int(unequal.size),
        "different_predictions": int(unequal.sum()),
        "largest_inversion": float(gaps.max(initial=0.0)),
    }
    print(f"{policy}: {notes}")
    return Fact(f"{policy}: samples off by more than ties", int((gaps >= TIE).sum()), 0, notes)


def inversions(found: Sequence[Tensor], exact: Sequence[Tensor]) -> np.ndarray:
    """Return the largest relative difference between two classes that float32 inverts, (N,).

    Args:
        found: float32 divergences, (N, 2, M) per tap.
        exact: float64 divergences, (N, 2, M) per tap.
    """
    largest = []
    for ours, theirs in zip(found, exact, strict=True):
        ordered = theirs.gather(-1, ours.argsort(dim=-1, stable=True))
        before = ordered.cummax(dim=-1).values
        relative = (before - ordered) / before.abs().clamp(min=1e-300)
        largest.append(relative.amax(dim=(1, 2)))
    result: np.ndarray = torch.stack(largest).amax(dim=0).cpu().numpy()
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print the table."""
    return command("scoring", __doc__, items, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
