"""The tables of docs/performance.md, from the committed results: `python -m benchmarks.tables`.

Between `<!-- NAME -->` and `<!-- /NAME -->` the page holds the table of results/NAME.json. The
command rewrites all tables; `--check` only reports whether they match the results. Exit status 1 if
they do not, 2 if a result is missing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
_TABLE = re.compile(r"(<!-- ([a-z_]+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)
_SIGNS = {"gain": "at least", "cost": "at most", "extra": "at most"}
_MB = 1e6
_HEADS = ("what", "against", "ratio", "range", "target", "", "peak, MB", "baseline's")


def markdown(result: Mapping[str, Any]) -> str:
    """Return the table of one result as Markdown."""
    lines = [_HEADS, *_rows(result)]
    head, *rows = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([head, "|" + "---|" * len(_HEADS), *rows]) + "\n"


def _rows(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in result["rows"]:
        if row["kind"] == "row":
            yield _ratio(row)
        elif row["kind"] == "fact":
            target = "" if row["target"] is None else f"at most {row['target']:g}"
            yield (row["what"], "", _value(row["value"]), "", target, _verdict(row), "", "")
        else:
            yield (row["what"], "", "not measured", row["reason"], "", "", "", "")


def _ratio(row: Mapping[str, Any]) -> tuple[str, ...]:
    unit = " s more" if row["measure"] == "extra" else ""
    spread = f"{_number(row['lowest'])} to {_number(row['highest'])}"
    target = "" if row["target"] is None else f"{_SIGNS[row['measure']]} {row['target']:g}"
    numbers = (f"{_number(row['ratio'])}{unit}", spread, target, _verdict(row))
    memory = (_megabytes(row["peak"]), _megabytes(row["baseline_peak"]))
    return (row["what"], row["baseline"], *numbers, *memory)


def _value(value: float) -> str:
    """Format a count exactly, any other number with three digits."""
    return str(int(value)) if value == int(value) else f"{value:.3g}"


def _number(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.3f}"


def _verdict(row: Mapping[str, Any]) -> str:
    return "" if row["target"] is None else "met" if row["met"] else "**not met**"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / _MB:.0f}"


def filled(page: str, results: Path) -> str:
    """Return `page` with the tables of `results`.

    Raises:
        FileNotFoundError: a result is missing.
    """

    def table(match: re.Match[str]) -> str:
        """Return one table between its markers."""
        found = json.loads((results / f"{match[2]}.json").read_text())
        return f"{match[1]}{markdown(found)}{match[3]}"

    return _TABLE.sub(table, page)


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the page, or check it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    options, page = parser.parse_args(arguments), PAGE.read_text()
    try:
        fresh = filled(page, RESULTS)
    except FileNotFoundError as error:
        print(f"the result {error.filename} does not exist: run `make bench`", file=sys.stderr)
        return 2
    if fresh == page:
        return 0
    if options.check:
        print(f"the tables of {PAGE.name} do not match the results: run this without --check")
        return 1
    PAGE.write_text(fresh)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
