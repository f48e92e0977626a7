"""Output of tables and lines on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from regroup_cluster.printable import printable
from regroup_pipelines.output import write_line

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


class LiteralConsole(Console):
    """A console that shows every text as it is: no markup, no emoji by name, no terminal codes."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return `text` for the terminal; titles, heads, cells and the labels of trees end here."""
        return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})


def show(table: Table, quiet: bool) -> None:
    """Print a table on standard output, unless `quiet` reserves it for JSON."""
    if not quiet:
        console = LiteralConsole(file=sys.stdout)
        # Without a terminal rich assumes 80 columns and truncates cells; logs must not.
        console.width = console.width if console.is_terminal else max(console.width, 140)
        with console.capture() as captured:
            console.print(table)
        write_line(captured.get().removesuffix("\n"))


def print_line(line: str, quiet: bool) -> None:
    """Print a line on standard output, unless `quiet` reserves it for JSON."""
    if not quiet:
        write_line(printable(line))
