"""Has anything become slower? `make bench-check`, or `python -m benchmarks.check FRESH`.

Compares the JSON files of a fresh run, in the folder FRESH, with the committed ones of
benchmarks/results. Every row is a ratio to a baseline that ran in the same minutes, so another load
or another machine moves it far less than the seconds. It fails, with exit status 1, where

- a ratio got worse by more than its spread allows: the best of the fresh rounds is worse than the
  worst of the committed ones. With five rounds each, two runs of the same code come to that once in
  250 rows;
- a fact (an error, a count) misses its target now and kept it before;
- a row or a file is not there any more, or was skipped.

Whether a ratio meets its target is said by the benchmark itself. Peak memory is not judged. Rows
that are new are named. Exit status 2 where nothing can be compared: no file, other sizes or device.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

COMMITTED = Path(__file__).parent / "results"
Outcome = Literal["same", "better", "worse", "missing", "new"]
FAILING: tuple[Outcome, ...] = ("worse", "missing")


class CannotCompareError(Exception):
    """Two results that are not of the same kind, or are none; the message says what to do."""


@dataclass(frozen=True)
class Verdict:
    """What became of a row of benchmark `name`; `told`: the numbers, in words."""

    name: str
    what: str
    outcome: Outcome
    told: str

    @property
    def failed(self) -> bool:
        """Whether the check fails by it."""
        return self.outcome in FAILING


def compare(name: str, committed: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[Verdict]:
    """A verdict for every row of either result of benchmark `name`.

    Raises CannotCompareError for other sizes or another device.
    """
    for key in ("sizes", "device"):
        if committed[key] != fresh[key]:
            raise CannotCompareError(
                f"{name}: the committed run has {key} {committed[key]!r}, the fresh one "
                f"{fresh[key]!r}: run it again with --{key} {committed[key]}"
            )
    return list(_verdicts(name, _measured(committed), _measured(fresh)))


def _measured(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rows that were not skipped, by name."""
    return {row["what"]: row for row in result["rows"] if row["kind"] != "skipped"}


def _verdicts(
    name: str, before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> Iterator[Verdict]:
    for what, row in before.items():
        if what not in now:
            yield Verdict(name, what, "missing", "it was measured, and is not any more")
        elif row["kind"] == "fact":
            yield Verdict(name, what, *_judge_fact(row, now[what]))
        else:
            yield Verdict(name, what, *_judge_ratio(row, now[what]))
    for what in now:
        if what not in before:
            yield Verdict(name, what, "new", "nothing to compare it with")


def _judge_fact(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Outcome, str]:
    outcome: Outcome = "worse" if before["met"] and not now["met"] else "same"
    return outcome, f"{before['value']:.3g} -> {now['value']:.3g}, target {now['target']}"


def _judge_ratio(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Outcome, str]:
    told = f"{_spread(before)} -> {_spread(now)}"
    lower, higher = now["highest"] < before["lowest"], now["lowest"] > before["highest"]
    worse, better = (lower, higher) if now["measure"] == "gain" else (higher, lower)
    return "worse" if worse else "better" if better else "same", told


def _spread(row: Mapping[str, Any]) -> str:
    return f"{row['ratio']:.3f} ({row['lowest']:.3f} to {row['highest']:.3f})"


def compare_folders(committed: Path, fresh: Path) -> list[Verdict]:
    """Verdicts of all benchmarks that have a file in `committed`.

    Raises CannotCompareError: see `compare`, and where there is no committed result or a file
    is none.
    """
    before = {
        path.name: result for path in sorted(committed.glob("*.json")) if (result := _read(path))
    }
    if not before:
        raise CannotCompareError(
            f"{committed} holds no results to compare with: run `make bench` and commit them"
        )
    verdicts: list[Verdict] = []
    for file, result in before.items():
        name = str(result["benchmark"])
        now = _read(fresh / file) if (fresh / file).exists() else None
        if now is None:
            verdicts.append(Verdict(name, "all rows", "missing", f"{fresh / file} is not there"))
        else:
            verdicts += compare(name, result, now)
    return verdicts


def _read(path: Path) -> dict[str, Any] | None:
    """The result in `path`; None for the JSON of a benchmark that has other rows."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CannotCompareError(f"{path} is no result of a benchmark: {error}") from error
    return content if isinstance(content, dict) and "benchmark" in content else None


def show(verdicts: Sequence[Verdict]) -> None:
    """Print what changed, failures last."""
    for verdict in sorted(verdicts, key=lambda each: each.failed):
        if verdict.outcome != "same":
            mark = "FAILED" if verdict.failed else "ok"
            place = f"{verdict.name}: {verdict.what}"
            print(f"{mark:6} {verdict.outcome:7} {place}: {verdict.told}")
    failed = sum(verdict.failed for verdict in verdicts)
    print(f"{len(verdicts)} rows compared, {failed} worse or missing")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; what changed goes to standard output."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=__doc__)
    parser.add_argument("fresh", type=Path, help="folder with the JSON files of a fresh run")
    parser.add_argument(
        "--committed", type=Path, default=COMMITTED, help="default: benchmarks/results"
    )
    options = parser.parse_args(arguments)
    try:
        verdicts = compare_folders(options.committed, options.fresh)
    except CannotCompareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(verdicts)
    return 1 if any(verdict.failed for verdict in verdicts) else 0


if __name__ == "__main__":
    raise SystemExit(main())
