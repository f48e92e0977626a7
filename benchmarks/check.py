"""Did a ratio get worse? `python -m benchmarks.check FRESH COMMITTED` (folders of JSON files).

Compares every row of the benchmarks in FRESH with the row of the same name in COMMITTED. A ratio
may be worse than the committed one by as much as the two spreads allow together: worse is where
even the best of the fresh rounds is worse than the worst of the committed ones. Exit status 1 where
one is, or where a row or a file that was committed is missing; faster is no fault. Ratios compare
two things on one machine, so that another machine's may be compared with them, with care.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Row = dict[str, Any]


def rows_of(path: Path) -> dict[tuple[str, str], Row]:
    """The rows of a benchmark's JSON file by what they compare."""
    report = json.loads(path.read_text())
    return {(row["what"], row["against"]): row for row in report["rows"]}


def complaints(fresh: Path, committed: Path) -> Iterator[str]:
    """A sentence for each committed row that is missing or worse in `fresh`."""
    for path in sorted(committed.glob("*.json")):
        if not (fresh / path.name).exists():
            yield f"{path.stem}: it was not run"
            continue
        found = rows_of(fresh / path.name)
        for key, row in rows_of(path).items():
            name = f"{path.stem}: {', '.join(key)}"
            if key not in found:
                yield f"{name}: it is missing"
            elif told := _worse(found[key], row):
                yield f"{name}: {told}"


def _worse(fresh: Row, committed: Row) -> str | None:
    lower = committed["better"] == "lower"
    best = fresh["lowest"] if lower else fresh["highest"]
    bound = committed["highest"] if lower else committed["lowest"]
    if best <= bound if lower else best >= bound:
        return None
    return (
        f"{fresh['ratio']:.3f} ({fresh['lowest']:.3f} to {fresh['highest']:.3f}) is worse than "
        f"{committed['ratio']:.3f} ({committed['lowest']:.3f} to {committed['highest']:.3f})"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; every complaint is a line of standard output."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=__doc__)
    parser.add_argument("fresh", type=Path, help="folder of the run that is judged")
    parser.add_argument("committed", type=Path, help="folder of the run that it is compared with")
    options = parser.parse_args(arguments)
    if not [*options.committed.glob("*.json")]:
        parser.error(f"{options.committed} holds no JSON file of a benchmark")
    found = list(complaints(options.fresh, options.committed))
    print("\n".join(found) or "No ratio got worse by more than the spread allows.")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
