"""Ours and a baseline in turn, round by round: what the timed benchmarks share."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from benchmarks.machine import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Clock = Literal["wall", "cpu"]
CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Case:
    """Two ways to do one thing.

    against: what the baseline is. target: of the ratio; None: it is reported alone. better:
    "lower", the ratio is our seconds over the baseline's and may be `target` at most; "higher", it
    is the baseline's over ours and has to be `target` at least. per_ours, per_baseline: how much
    each call does, where it is not the same.
    """

    what: str
    against: str
    ours: Callable[[], object]
    baseline: Callable[[], object]
    target: float | None
    better: Literal["lower", "higher"] = "lower"
    per_ours: float = 1.0
    per_baseline: float = 1.0


@dataclass(frozen=True)
class Row:
    """What was measured: seconds for one unit, medians; the ratio round by round."""

    what: str
    against: str
    ours: float
    baseline: float
    ratio: float
    lowest: float
    highest: float
    target: float | None
    better: str

    @property
    def met(self) -> bool:
        """Whether the ratio reaches its target, where there is one."""
        if self.target is None:
            return True
        return self.ratio <= self.target if self.better == "lower" else self.ratio >= self.target


@dataclass(frozen=True)
class Skipped:
    """What could not be measured here."""

    what: str
    reason: str


def measure(case: Case, rounds: int, device: str, clock: Clock = "wall") -> Row:
    """Run both in turn, every other round the baseline first, after a round to warm up."""
    works = {"ours": case.ours, "baseline": case.baseline}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        names = list(works) if number % 2 else list(works)[::-1]
        for name in names:
            taken = _timed(works[name], device, clock)
            if number:
                seconds[name].append(taken)
    ours = [each / case.per_ours for each in seconds["ours"]]
    baseline = [each / case.per_baseline for each in seconds["baseline"]]
    pairs = list(zip(ours, baseline, strict=True))
    ratios = [a / b if case.better == "lower" else b / a for a, b in pairs]
    return Row(
        what=case.what,
        against=case.against,
        ours=statistics.median(ours),
        baseline=statistics.median(baseline),
        ratio=statistics.median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        target=case.target,
        better=case.better,
    )


def _timed(work: Callable[[], object], device: str, clock: Clock) -> float:
    started = CLOCKS[clock]()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return CLOCKS[clock]() - started


def parser(name: str, description: str | None, sizes: Sequence[str]) -> argparse.ArgumentParser:
    """The options that all have: device, sizes, rounds, clock, json."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    made.add_argument("--device", default=default, help=f"default here: {default}")
    made.add_argument("--sizes", choices=tuple(sizes), default=sizes[0], help="how much is done")
    made.add_argument("--rounds", type=int, default=5, help="default 5")
    made.add_argument(
        "--clock", choices=tuple(CLOCKS), default="wall",
        help="cpu: of this process alone, where other processes keep the machine busy; no GPU",
    )  # fmt: skip
    made.add_argument("--json", type=Path, help="write the numbers to this file as well")
    return made


def parsed(made: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; exit status 2 where they cannot be meant."""
    options = made.parse_args(arguments)
    if options.clock == "cpu" and options.device != "cpu":
        made.error("--clock cpu cannot time a GPU")
    if options.rounds < 1:
        made.error("--rounds must be at least 1")
    return options


def run(
    options: argparse.Namespace, cases: Iterable[Case | Skipped], more: dict[str, object]
) -> int:
    """Measure, print the table, write the JSON; the exit status: 1 where a target is missed.

    `more`: goes into the JSON.
    """
    described = machine(options.device)
    print(", ".join(f"{name}: {value}" for name, value in described.items()))
    print(f"sizes {options.sizes}, {options.rounds} rounds, {options.clock} time")
    _head()
    found = list(_measured(options, cases))
    rows = [row for row in found if isinstance(row, Row)]
    if options.json:
        report = {
            "machine": described,
            **{name: getattr(options, name) for name in ("sizes", "rounds", "clock")},
            **more,
            "rows": [asdict(row) | {"met": row.met} for row in rows],
            "skipped": [asdict(each) for each in found if isinstance(each, Skipped)],
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(row.met for row in rows) else 1


def _measured(
    options: argparse.Namespace, cases: Iterable[Case | Skipped]
) -> Iterator[Row | Skipped]:
    for case in cases:
        if isinstance(case, Skipped):
            print(f"{case.what:44} skipped: {case.reason}", flush=True)
            yield case
            continue
        row = measure(case, options.rounds, options.device, options.clock)
        _show(row)
        yield row


def _head() -> None:
    heads = ("ours s", "other s", "ratio", "lowest", "highest", "target")
    print(f"{'what':44} {'against':24} " + " ".join(f"{head:>9}" for head in heads))


def _show(row: Row) -> None:
    sign = "<=" if row.better == "lower" else ">="
    target = "-" if row.target is None else f"{sign} {row.target:g}"
    figures = f"{row.ours:9.3g} {row.baseline:9.3g} {row.ratio:9.3f} {row.lowest:9.3f}"
    end = f"{row.highest:9.3f} {target:>9}{'' if row.met else '  NOT MET'}"
    print(f"{row.what:44} {row.against:24} {figures} {end}", flush=True)
