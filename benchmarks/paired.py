"""Paired measurements of our code and a baseline: alternating rounds, a table, JSON, exit status.

The contenders run alternately, after a round for warm-up, and every round starts with a different
one. Ratios are computed per round: the median counts, the lowest and highest are its spread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import torch

from benchmarks.machine import forget_peak, machine, peak_bytes, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")
Measure = Literal["cost", "gain", "extra"]
"""cost: our seconds over the baseline's, at most the target. gain: the baseline's over ours, at
least the target. extra: our seconds minus the baseline's, at most the target."""
SIZES = ("tiny", "small", "full")
ROUNDS = 5
MB = 1e6
THIS_PROCESS = -1  # a peak that is still to be measured, in this process


@dataclass(frozen=True)
class Taken:
    """What a run reports of itself.

    Attributes:
        seconds: wall time.
        peak_bytes: peak memory of the processes that it used; None: unknown.
        processor_s: processor seconds of the processes that it used; None: unknown.
    """

    seconds: float
    peak_bytes: int | None = None
    processor_s: float | None = None


@dataclass(frozen=True)
class Contender:
    """A function that is compared with a baseline.

    Attributes:
        what: its name in the table.
        run: runs it once; may return `Taken` if the wall time of the call is not what counts.
        target: the target of its ratio; None: for information.
        measure: which ratio, and whether the target is an upper or a lower bound.
        samples: samples per run, so that a slow baseline may process fewer.
        notes: numbers and words for the JSON.
        against: the contender of the same comparison that is its baseline; None: the comparison's.
    """

    what: str
    run: Callable[[], object]
    target: float | None = None
    measure: Measure = "cost"
    samples: int = 1
    notes: dict[str, object] = field(default_factory=dict)
    against: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Contenders and their baseline, which processes `samples` samples per run."""

    baseline: str
    run: Callable[[], object]
    contenders: tuple[Contender, ...]
    samples: int = 1

    @property
    def ways(self) -> tuple[Contender, ...]:
        """Everything that runs, the baseline first."""
        return (Contender(self.baseline, self.run, samples=self.samples), *self.contenders)

    def base_of(self, contender: Contender) -> int:
        """Return the position in `ways` of the baseline of `contender`."""
        against = contender.against or self.baseline
        return [way.what for way in self.ways].index(against)


@dataclass(frozen=True)
class Row:
    """The measurement of a contender.

    Attributes:
        what: the contender.
        baseline: its baseline.
        ours_s: seconds per sample in the median round.
        baseline_s: the baseline's seconds per sample in the median round.
        measure: which ratio.
        ratio: the median ratio.
        lowest: the lowest ratio.
        highest: the highest ratio.
        target: target of the ratio; None: for information.
        rounds: number of rounds.
        peak: peak bytes of a run: of the process (or its workers) on a CPU, else allocated on the
            GPU; None: unknown.
        baseline_peak: the same of the baseline.
        processor: the ratio of processor times, which other load affects less; None: unknown.
        notes: numbers and words for the JSON.
    """

    what: str
    baseline: str
    ours_s: float
    baseline_s: float
    measure: Measure
    ratio: float
    lowest: float
    highest: float
    target: float | None
    rounds: int
    peak: int | None = None
    baseline_peak: int | None = None
    processor: float | None = None
    notes: dict[str, object] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether the ratio meets its target, if there is one."""
        if self.target is None:
            return True
        return self.ratio >= self.target if self.measure == "gain" else self.ratio <= self.target


@dataclass(frozen=True)
class Fact:
    """A number other than a time, which may be at most `target`."""

    what: str
    value: float
    target: float | None
    notes: dict[str, object] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether the value meets its target, if there is one."""
        return self.target is None or self.value <= self.target


@dataclass(frozen=True)
class Skipped:
    """A row that could not be measured, and the reason."""

    what: str
    reason: str


Found = Row | Fact | Skipped
Item = Comparison | Fact | Skipped


@dataclass(frozen=True)
class Setting:
    """The options of a benchmark: a torch device, one of `SIZES`, and rounds after warm-up."""

    device: str
    sizes: str
    rounds: int


def measure(comparison: Comparison, rounds: int, device: str = "cpu") -> list[Row]:
    """Run the baseline and all contenders alternately, `rounds` times after a warm-up.

    Peak memory is that of an additional run, because it frees memory that a timed run would reuse.
    """
    ways = comparison.ways
    taken: list[list[Taken]] = [[] for _ in ways]
    for number in range(rounds + 1):  # the first to warm up
        for place in rotated(list(range(len(ways))), number):
            once = _timed(ways[place].run, device)
            if number:
                taken[place].append(once)
    peaks = [_peak(way.run, found, device) for way, found in zip(ways, taken, strict=True)]
    measured = [_Measured(*each) for each in zip(ways, taken, peaks, strict=True)]
    return [_row(measured[comparison.base_of(each.way)], each) for each in measured[1:]]


@dataclass(frozen=True)
class _Measured:
    """All runs of one contender, without warm-up."""

    way: Contender
    taken: list[Taken]
    peak: int | None

    def seconds(self) -> list[float]:
        """Return the seconds per sample of each round."""
        return [each.seconds / self.way.samples for each in self.taken]

    def processor(self) -> list[float]:
        """Return the processor seconds per sample of each round; empty if a run lacks them."""
        each = [one.processor_s / self.way.samples for one in self.taken if one.processor_s]
        return each if len(each) == len(self.taken) else []


def rotated(items: list[T], by: int) -> list[T]:
    """Rotate `items`, so that none always runs after the same one."""
    by %= len(items)
    return items[by:] + items[:by]


def _timed(run: Callable[[], object], device: str) -> Taken:
    wait_for(device)
    started, used = time.perf_counter(), time.process_time()
    result = run()
    wait_for(device)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    return result if isinstance(result, Taken) else Taken(seconds, THIS_PROCESS, used)


def _peak(run: Callable[[], object], taken: Sequence[Taken], device: str) -> int | None:
    if any(each.peak_bytes == THIS_PROCESS for each in taken):
        forget_peak(device)
        run()
        return peak_bytes(device)
    known = [each.peak_bytes for each in taken if each.peak_bytes is not None]
    return max(known, default=None)


def _row(base: _Measured, ours: _Measured) -> Row:
    contender = ours.way
    each = _ratios(contender.measure, ours.seconds(), base.seconds())
    known = bool(base.processor() and ours.processor())
    processor = _ratios(contender.measure, ours.processor(), base.processor()) if known else []
    return Row(
        what=contender.what,
        baseline=base.way.what,
        ours_s=statistics.median(ours.seconds()),
        baseline_s=statistics.median(base.seconds()),
        measure=contender.measure,
        ratio=statistics.median(each),
        lowest=min(each),
        highest=max(each),
        target=contender.target,
        rounds=len(each),
        peak=ours.peak,
        baseline_peak=base.peak,
        processor=statistics.median(processor) if processor else None,
        notes=contender.notes,
    )


def _ratios(measure: Measure, ours: list[float], bases: list[float]) -> list[float]:
    return [ratio(measure, a, b) for a, b in zip(ours, bases, strict=True)]


def ratio(measure: Measure, ours: float, baseline: float) -> float:
    """Return the ratio of a round by `measure`."""
    if measure == "extra":
        return ours - baseline
    return ours / baseline if measure == "cost" else baseline / ours


# ---- the table


def show_head() -> None:
    """Print the head of the table."""
    heads = ("ours ms", "base ms", "ratio", "lowest", "highest", "target")
    columns = " ".join(f"{head:>9}" for head in heads)
    print(
        f"{'what':54} {'baseline':31} {columns}  verdict, ratio of processor time, "
        "peak MB (baseline's)"
    )


def show(found: Found) -> None:
    """Print a line of the table, in milliseconds per sample."""
    if isinstance(found, Skipped):
        print(f"{found.what:54} skipped: {found.reason}", flush=True)
        return
    verdict = "" if found.target is None else "met" if found.met else "NOT MET"
    if isinstance(found, Fact):
        target = "-" if found.target is None else f"<= {found.target:.3g}"
        value = f"{found.value:.0f}" if found.value >= 1000 else f"{found.value:.3g}"
        line = f"{found.what:54} {'':31} {'':19} {value:>9} {'':19} {target:>9}"
        print(f"{line}  {verdict}", flush=True)
        return
    sign = ">=" if found.measure == "gain" else "<="
    target = "-" if found.target is None else f"{sign} {found.target:.3g}"
    seconds = f"{1e3 * found.ours_s:9.4g} {1e3 * found.baseline_s:9.4g}"
    spread = f"{found.ratio:9.3f} {found.lowest:9.3f} {found.highest:9.3f}"
    memory = f"{_megabytes(found.peak)} ({_megabytes(found.baseline_peak)})"
    processor = "-" if found.processor is None else f"{found.processor:.3f}"
    line = f"{found.what:54} {found.baseline:31} {seconds} {spread} {target:>9}"
    print(f"{line}  {verdict:7} {processor:>6} {memory}", flush=True)


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / MB:.0f}"


def as_json(found: Found) -> dict[str, object]:
    """Return a row of the JSON, with its verdict `met`."""
    kind = type(found).__name__.lower()
    met = {} if isinstance(found, Skipped) else {"met": found.met}
    return {"kind": kind, **asdict(found), **met}


# ---- the command


def command(
    name: str,
    description: str | None,
    items: Callable[[Setting], Iterator[Item]],
    arguments: Sequence[str] | None,
) -> int:
    """Measure the items one after the other; return 1 if a target is missed, else 0."""
    options = _options(name, description, arguments)
    setting = Setting(options.device, options.sizes, options.rounds)
    described = machine(setting.device)
    print(", ".join(f"{key}: {value}" for key, value in described.items()))
    print(f"{name}, sizes {setting.sizes}, {setting.rounds} rounds")
    show_head()
    found: list[Found] = []
    for item in items(setting):
        rows = (
            measure(item, setting.rounds, setting.device)
            if isinstance(item, Comparison)
            else [item]
        )
        for row in rows:
            show(row)
        found += rows
    if options.json:
        content = {"benchmark": name, "machine": described, **asdict(setting)}
        content["rows"] = [as_json(row) for row in found]
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(row.met for row in found if not isinstance(row, Skipped)) else 1


def _options(
    name: str, description: str | None, arguments: Sequence[str] | None
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--sizes", choices=SIZES,
        help="tiny: for tests; small: minutes, a CPU's default; full: a GPU's default",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    options.sizes = options.sizes or ("small" if options.device == "cpu" else "full")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch sees no GPU here; use --device cpu")
    return options
