"""Scoring beside the bare arithmetic that it cannot do without: `python -m benchmarks.scoring`.

`Scorer.votes` of ResNet-50's taps (both policies) and 1000 classes: every k, every sign choice and
each tap alone. Its floor: the float32 matrix product and one argsort of every voter, by torch or
NumPy, whichever is faster here; at most 1.5 of it. And all k and sign choices over one
(`Scorer.borda_sums`): at most 1.3. Predictions must be those of float64, but for ties closer than
1e-6. Exit status 1 where a target is missed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.alternating import Case, parsed, parser, run
from benchmarks.floors import numpy_order, torch_order
from benchmarks.networks import CLASSES, random_bank, taps_of
from regroup.scoring import Scorer
from regroup.taps import TAP_POLICIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

FLOOR, ONE_K = 1.5, 1.3
SAMPLES = {"small": 2000, "tiny": 8}
CHECKED = 64
TIE = 1e-6


class Subject:
    """Accumulators of `samples` samples and a bank, on `device`."""

    def __init__(self, taps: list[tuple[str, int]], samples: int, device: str) -> None:
        self.device, self.samples = torch.device(device), samples
        random = torch.Generator().manual_seed(0)
        self.accumulators = [
            torch.randn((samples, 2, size), generator=random).exp().to(device) for _, size in taps
        ]
        self.labels = torch.arange(samples, device=device) % CLASSES
        self.bank, self.k = random_bank(taps), len(taps)
        self.scorer = Scorer(self.bank, device=device)
        sizes = sorted({size for _, size in taps})
        self._left = {size: torch.rand(samples, size, device=device) for size in sizes}
        self._right = {size: torch.rand(size, CLASSES, device=device) for size in sizes}
        self._sizes = [size for _, size in taps]

    def votes(self) -> object:
        """Everything that the store keeps of the samples."""
        return self.scorer.votes(self.accumulators, self.labels)

    def one(self) -> object:
        """All taps, both signs, one k."""
        return self.scorer.borda_sums(self.accumulators, self.k, "both")

    def floor(self, order: Callable[[Tensor], object]) -> None:
        """The bare products and argsorts of all voters."""
        for size in self._sizes:
            for _ in ("positive", "negative"):
                order(self._left[size] @ self._right[size])

    def differences(self) -> int:
        """Voters' orders of neighbours that float64 has another way, ties left out."""
        rows = [part[:CHECKED] for part in self.accumulators]
        found = self.scorer.divergences(rows)
        exact = Scorer(self.bank, device=self.device, dtype=torch.float64).divergences(rows)
        return sum(_swapped(one, two) for one, two in zip(found, exact, strict=True))


def _swapped(found: Tensor, exact: Tensor) -> int:
    best = found.argmin(dim=-1, keepdim=True)
    gap = exact.gather(-1, best) - exact.amin(-1, keepdim=True)
    return int((gap > TIE).sum())


def cases(subject: Subject, policy: str) -> Iterator[Case]:
    """Scoring against its floor, and all k against one."""
    what, each = f"resnet50, {policy}", subject.samples
    orders: dict[str, Callable[[Tensor], object]] = {"torch": torch_order}
    if subject.device.type == "cpu":
        orders["numpy"] = numpy_order
    for name, order in orders.items():
        floor, against = partial(subject.floor, order), f"floor, {name}'s argsort"
        fastest = name == list(orders)[-1]
        target = FLOOR if fastest else None
        yield Case(what, against, subject.votes, floor, target, "lower", each, each)
    yield Case(what, "one k, both signs", subject.votes, subject.one, ONE_K, "lower", each, each)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons; the table goes to standard output."""
    options = parsed(parser("scoring", __doc__, list(SAMPLES)), arguments)
    differences: dict[str, int] = {}

    def found() -> Iterator[Case]:
        for policy in TAP_POLICIES:
            taps = taps_of("resnet50", policy)
            subject = Subject(taps, SAMPLES[options.sizes], options.device)
            differences[policy] = subject.differences()
            yield from cases(subject, policy)

    status = run(options, found(), {"classes": CLASSES, "first_choices_that_differ": differences})
    checked = min(CHECKED, SAMPLES[options.sizes])
    print(
        f"first choices of voters unlike float64's, of {checked} samples, ties aside: {differences}"
    )
    return status or int(np.sum(list(differences.values())) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
