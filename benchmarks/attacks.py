"""Our attacks compared with other implementations: `python -m benchmarks.attacks`.

All implementations in a row use the same network, images, steps and device, and run alternately for
several rounds. A ratio is the other's time over ours, per round; the median counts:

- PGD in a ball, all steps: at least as fast as Foolbox's and torchattacks' (ratio >= 1);
- PGD for the smallest perturbation: >= 3 over attacking the full batch until all samples are done;
  and up to the first success only, without a target, because the bisections take all samples about
  as long;
- DeepFool, C&W and Boundary: at most 5 % slower than Foolbox called directly (>= 1 / 1.05);
- SPSA: compared with torchattacks', the public torch version that works, on single images and on
  batches; no target. (cleverhans 4's estimates its gradient at a point other than the iterate.)

With --weights FILE --images parquet:FILE it attacks a CIFAR ResNet-20, for example; by default a
small network is trained on handwritten digits, whose times are mostly overhead. The label of an
image is the network's prediction, so that all images are attacked. The targets apply to the sizes
"small" (CPU, some minutes) and "large" (GPU). torchattacks is used for nothing else; install it
without its requirements: `pip install --no-deps torchattacks requests tqdm`. Rows whose library is
missing are listed with the reason. Exit status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from benchmarks.attack_comparisons import COMPARISONS, SIZES, Attack, Comparison, Sizes
from benchmarks.attack_subject import Subject, on_digits, on_images
from benchmarks.machine import machine
from regroup.errors import ConfigurationError
from regroup_store.errors import StoreUsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

Clock = Literal["wall", "cpu"]
CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Row:
    """Our attack compared with one other.

    Attributes:
        what: the attack.
        rival: the other implementation.
        samples: images attacked.
        ours: our samples/s in the median round.
        theirs: their samples/s in the median round.
        ratio: their time over ours, the median over the rounds.
        lowest: the lowest ratio of a round.
        highest: the highest ratio of a round.
        target: the smallest ratio that meets the target; None: no target.
        fooled: share of the images that our attack fools.
        fooled_by_theirs: share of the images that theirs fools.
    """

    what: str
    rival: str
    samples: int
    ours: float
    theirs: float
    ratio: float
    lowest: float
    highest: float
    target: float | None
    fooled: float
    fooled_by_theirs: float

    @property
    def met(self) -> bool:
        """Whether the ratio reaches its target, if there is one."""
        return self.target is None or self.ratio >= self.target


@dataclass(frozen=True)
class Skipped:
    """A comparison that could not be measured, and the reason."""

    what: str
    rival: str
    reason: str


def measure(comparison: Comparison, rounds: int, clock: Clock = "wall") -> Iterator[Row | Skipped]:
    """Run the attacks alternately; every round starts with a different one."""
    attacks = {"": comparison.ours, **comparison.rivals}
    seconds: dict[str, list[float]] = {name: [] for name in attacks}
    images: dict[str, Tensor] = {}
    broken, device = dict(comparison.missing), comparison.subject.pixels.device
    for number in range(rounds + 1):  # the first to warm up
        for name in rotated([name for name in attacks if name not in broken], number):
            try:
                taken, images[name] = _timed(attacks[name], device, clock)
            except Exception as error:
                if name == "":
                    raise
                # Foolbox's Boundary, for example, raises for the batch if one start fails.
                broken[name] = f"{type(error).__name__}: {error}"
                continue
            if number:
                seconds[name].append(taken)
    for name in comparison.rivals:
        if name not in broken:
            yield _row(comparison, name, seconds[""], seconds[name], images)
    for name, reason in broken.items():
        yield Skipped(comparison.what, name, reason)


def rotated(names: list[str], by: int) -> list[str]:
    """Rotate `names`, so that no attack always runs after the same one."""
    by %= len(names)
    return names[by:] + names[:by]


def _timed(attack: Attack, device: torch.device, clock: Clock) -> tuple[float, Tensor]:
    started = CLOCKS[clock]()
    images = attack()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return CLOCKS[clock]() - started, images


def _row(
    comparison: Comparison,
    rival: str,
    ours: list[float],
    theirs: list[float],
    images: dict[str, Tensor],
) -> Row:
    subject, (median, lowest, highest) = comparison.subject, ratios(ours, theirs)
    count = len(subject.pixels)
    return Row(
        what=comparison.what,
        rival=rival,
        samples=count,
        ours=count / statistics.median(ours),
        theirs=count / statistics.median(theirs),
        ratio=median,
        lowest=lowest,
        highest=highest,
        target=comparison.target,
        fooled=subject.fooled(images[""]),
        fooled_by_theirs=subject.fooled(images[rival]),
    )


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, lowest and highest of their seconds over ours; above 1: ours is faster."""
    each = [their / our for our, their in zip(ours, theirs, strict=True)]
    return statistics.median(each), min(each), max(each)


def measure_all(
    subject: Subject, sizes: Sizes, names: Sequence[str], rounds: int, clock: Clock
) -> list[Row | Skipped]:
    """Measure the comparisons `names`; those whose attack or library is missing are skipped."""
    found: list[Row | Skipped] = []
    for name in names:
        try:
            comparison = COMPARISONS[name](subject, sizes)
        except (ImportError, ConfigurationError) as error:
            found.append(Skipped(name, "", str(error)))
            continue
        found += measure(comparison, rounds, clock)
    return found


# ---- the command


def show(found: Sequence[Row | Skipped]) -> None:
    """Print the table."""
    heads = ("ours/s", "theirs/s", "ratio", "lowest", "highest", "target", "fooled", "by theirs")
    print(f"{'what':12} {'against':20} {'images':>6} " + " ".join(f"{h:>9}" for h in heads))
    for row in found:
        if isinstance(row, Skipped):
            print(f"{row.what:12} {row.rival:20} skipped: {row.reason}")
            continue
        speeds = f"{row.ours:9.3g} {row.theirs:9.3g}"
        spread = f"{row.ratio:9.3f} {row.lowest:9.3f} {row.highest:9.3f}"
        target = f"{'-' if row.target is None else f'{row.target:.3f}':>9}"
        shares = f"{row.fooled:9.2f} {row.fooled_by_theirs:9.2f}"
        verdict = "" if row.met else "  NOT MET"
        start = f"{row.what:12} {row.rival:20} {row.samples:6}"
        print(f"{start} {speeds} {spread} {target} {shares}{verdict}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("--weights", help="weights file, or random; needs --images")
    parser.add_argument("--model", default="cifar-resnet20", help="model of the weights")
    parser.add_argument("--images", help="source of images, such as parquet:FILE")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help=f"default here: {default}")
    parser.add_argument("--sizes", choices=tuple(SIZES), help="default: small on a CPU, or large")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--clock", choices=tuple(CLOCKS), default="wall",
        help="cpu: time of this process only, for a busy machine; not for a GPU",
    )  # fmt: skip
    parser.add_argument(
        "--only", nargs="+", choices=tuple(COMPARISONS), default=list(COMPARISONS), metavar="WHAT",
        help=f"some of {', '.join(COMPARISONS)}",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    options = parser.parse_args(arguments)
    if (options.weights is None) != (options.images is None):
        parser.error("--weights and --images belong together")
    options.sizes = options.sizes or ("small" if options.device == "cpu" else "large")
    if options.clock == "cpu" and options.device != "cpu":
        parser.error("--clock cpu cannot time a GPU")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def _subject(options: argparse.Namespace, count: int) -> Subject:
    if options.weights is None:
        return on_digits(count, options.device)
    return on_images(options.model, options.weights, options.images, count, options.device)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons and print the table."""
    options = _options(arguments)
    sizes, described = SIZES[options.sizes], machine(options.device)
    try:
        subject = _subject(options, sizes.most_images)
    except (ConfigurationError, StoreUsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{name}: {value}" for name, value in described.items()))
    found = measure_all(subject, sizes, options.only, options.rounds, options.clock)
    how = f"sizes {options.sizes}, {options.rounds} rounds, {options.clock} time"
    print(f"{subject.model.name}, batches of {subject.rows}, {how}")
    show(found)
    if options.json:
        report = _report(subject, found, described, options)
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(row.met for row in found if isinstance(row, Row)) else 1


def _report(
    subject: Subject,
    found: Sequence[Row | Skipped],
    described: dict[str, object],
    options: argparse.Namespace,
) -> dict[str, object]:
    rows = [asdict(row) | {"met": row.met} for row in found if isinstance(row, Row)]
    skipped = [asdict(row) for row in found if isinstance(row, Skipped)]
    names = ("sizes", "rounds", "clock")
    setting = {name: getattr(options, name) for name in names}
    subjects = {"model": subject.model.name, "batch": subject.rows}
    return {"machine": described, **subjects, **setting, "rows": rows, "skipped": skipped}


if __name__ == "__main__":
    raise SystemExit(main())
