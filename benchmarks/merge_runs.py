"""Merge several runs of the same code: `python -m benchmarks.merge_runs RUN RUN --into OUT`.

Rounds of one run are minutes apart, but a machine drifts over hours: what `make bench-check`
reports as worse has to lie outside the variation between runs of the same code. The committed
results therefore combine several runs. RUN and OUT are folders of JSON files. A ratio is the mean
of the runs' medians and its range spans all runs; a fact with a target is the worst of them, any
other the last. Exit status 2 if the runs do not match.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Result = dict[str, Any]
_MEANS = ("ours_s", "baseline_s", "ratio", "processor")
_LARGEST = ("highest", "peak", "baseline_peak")


class UnlikeError(Exception):
    """Runs that differ in benchmark, sizes, device or rows; the message says in which."""


def merged(runs: Sequence[Mapping[str, Any]]) -> Result:
    """Merge all `runs` of one benchmark; the machine is described as in the last.

    Raises:
        UnlikeError: the runs differ in benchmark, sizes, device or rows.
    """
    for key in ("benchmark", "sizes", "device"):
        if len({run[key] for run in runs}) > 1:
            raise UnlikeError(
                f"the runs differ in {key}: {', '.join(str(run[key]) for run in runs)}"
            )
    names = [[row["what"] for row in run["rows"]] for run in runs]
    if any(each != names[0] for each in names):
        raise UnlikeError(f"{runs[0]['benchmark']}: the runs have different rows")
    rows = [_merged_row(rows) for rows in zip(*(run["rows"] for run in runs), strict=True)]
    return {**runs[-1], "rounds": sum(run["rounds"] for run in runs), "rows": rows}


def _merged_row(rows: Sequence[Mapping[str, Any]]) -> Result:
    """Merge one row of all runs."""
    last = dict(rows[-1])
    if last["kind"] == "skipped" or (last["kind"] == "fact" and last["target"] is None):
        return last
    if last["kind"] == "fact":
        return max((dict(row) for row in rows), key=lambda row: float(row["value"]))
    last |= {name: _known(fmean, rows, name) for name in _MEANS}
    last |= {name: _known(max, rows, name) for name in _LARGEST}
    last |= {"lowest": min(row["lowest"] for row in rows), "rounds": sum(r["rounds"] for r in rows)}
    return last | {"met": _met(last)}


def _known(function: Any, rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    """Apply `function` to the runs that have the number; None if none has it."""
    values = [row[name] for row in rows if row[name] is not None]
    return function(values) if values else None


def _met(row: Mapping[str, Any]) -> bool:
    ratio, target = row["ratio"], row["target"]
    if target is None:
        return True
    return bool(ratio >= target if row["measure"] == "gain" else ratio <= target)


def main(arguments: Sequence[str] | None = None) -> int:
    """Merge and write the files that all runs have."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merge_runs", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders, each with the JSON of a run")
    parser.add_argument("--into", type=Path, required=True, help="folder of the results")
    options = parser.parse_args(arguments)
    names = [{path.name for path in run.glob("*.json")} for run in options.runs]
    try:
        results = {name: merged(_read(options.runs, name)) for name in set.intersection(*names)}
    except (UnlikeError, KeyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.into.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        (options.into / name).write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _read(runs: Sequence[Path], name: str) -> list[Result]:
    return [json.loads((run / name).read_text()) for run in runs]


if __name__ == "__main__":
    raise SystemExit(main())
