"""Print the figures of the tree: `make house`."""

from __future__ import annotations

import sys

from tests.house.figures import House, figures


def main() -> None:
    """A line per figure; exit status 1 where one is past its bound."""
    found = figures(House.read())
    for figure in found:
        verdict = "" if figure.kept else "  TOO MANY"
        which = f"  ({figure.which})" if figure.which and figure.value else ""
        print(f"{figure.value:5}  of at most {figure.bound:3}  {figure.what}{which}{verdict}")
    sys.exit(not all(figure.kept for figure in found))


if __name__ == "__main__":
    main()
