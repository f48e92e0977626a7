"""Regression check: `make bench-check`, or `python -m benchmarks.check FRESH`.

Compares the JSON files of a fresh run, in the folder FRESH, with the committed ones in
benchmarks/results. Every row is a ratio to a baseline that ran within the same minutes, so other
load or another machine changes it far less than the seconds. It fails, with exit status 1, if

- a ratio got worse by more than its spread: the best of the fresh rounds is worse than the worst of
  the committed ones. With five rounds each, two runs of the same code differ by this much in one of
  250 rows;
- a fact (an error, a count) misses its target now and met it before;
- a row or a file is missing, or was skipped.

Whether a ratio meets its target is reported by the benchmark itself. Peak memory is not checked.
New rows are listed. Exit status 2 if nothing can be compared: no file, other sizes or another
device.
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
    """Two files that cannot be compared; the message says what to do."""


@dataclass(frozen=True)
class Verdict:
    """The result of comparing one row.

    Attributes:
        name: the benchmark.
        what: the row.
        outcome: how the fresh row differs.
        detail: the numbers, as text.
    """

    name: str
    what: str
    outcome: Outcome
    detail: str

    @property
    def failed(self) -> bool:
        """Whether the check fails because of this row."""
        return self.outcome in FAILING


def compare(name: str, committed: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[Verdict]:
    """Compare every row of two results of benchmark `name`.

    Raises:
        CannotCompareError: the sizes or the devices differ.
    """
    for key in ("sizes", "device"):
        if committed[key] != fresh[key]:
            raise CannotCompareError(
                f"{name}: the committed run has {key} {committed[key]!r}, the fresh one "
                f"{fresh[key]!r}: run it again with --{key} {committed[key]}"
            )
    return list(_verdicts(name, _measured(committed), _measured(fresh)))


def _measured(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the rows that were not skipped, by name."""
    return {row["what"]: row for row in result["rows"] if row["kind"] != "skipped"}


def _verdicts(
    name: str, before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> Iterator[Verdict]:
    for what, row in before.items():
        if what not in now:
            yield Verdict(name, what, "missing", "it was measured before, but not in the fresh run")
        elif row["kind"] == "fact":
            yield Verdict(name, what, *_compare_fact(row, now[what]))
        else:
            yield Verdict(name, what, *_compare_ratio(row, now[what]))
    for what in now:
        if what not in before:
            yield Verdict(name, what, "new", "nothing to compare it with")


def _compare_fact(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Outcome, str]:
    outcome: Outcome = "worse" if before["met"] and not now["met"] else "same"
    return outcome, f"{before['value']:.3g} -> {now['value']:.3g}, target {now['target']}"


def _compare_ratio(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Outcome, str]:
    detail = f"{_spread(before)} -> {_spread(now)}"
    lower, higher = now["highest"] < before["lowest"], now["lowest"] > before["highest"]
    worse, better = (lower, higher) if now["measure"] == "gain" else (higher, lower)
    return "worse" if worse else "better" if better else "same", detail


def _spread(row: Mapping[str, Any]) -> str:
    return f"{row['ratio']:.3f} ({row['lowest']:.3f} to {row['highest']:.3f})"


def compare_folders(committed: Path, fresh: Path) -> list[Verdict]:
    """Compare all benchmarks that have a file in `committed`.

    Raises:
        CannotCompareError: see `compare`; there is no committed result, or a file is not a result.
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
            verdicts.append(Verdict(name, "all rows", "missing", f"{fresh / file} does not exist"))
        else:
            verdicts += compare(name, result, now)
    return verdicts


def _read(path: Path) -> dict[str, Any] | None:
    """Read the result in `path`; None for the JSON of a benchmark with another format."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CannotCompareError(f"{path} is not the result of a benchmark: {error}") from error
    return content if isinstance(content, dict) and "benchmark" in content else None


def show(verdicts: Sequence[Verdict]) -> None:
    """Print what changed, failures last."""
    for verdict in sorted(verdicts, key=lambda each: each.failed):
        if verdict.outcome != "same":
            mark = "FAILED" if verdict.failed else "ok"
            place = f"{verdict.name}: {verdict.what}"
            print(f"{mark:6} {verdict.outcome:7} {place}: {verdict.detail}")
    failed = sum(verdict.failed for verdict in verdicts)
    print(f"{len(verdicts)} rows compared, {failed} worse or missing")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and print what changed."""
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
