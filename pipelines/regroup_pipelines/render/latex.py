"""Tables as LaTeX with booktabs; every cell is escaped."""

from __future__ import annotations

import re

from regroup_pipelines.render.escapes import latex_text


def latex_table(heads: list[str], rows: list[list[str]], title: str, note: str, label: str) -> str:
    """Return a `table` environment that needs booktabs; the first column is left-aligned."""
    lines = [" & ".join(map(latex_text, row)) + r" \\" for row in [heads, *rows]]
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(title)}. {latex_text(note)}}}",
            rf"\label{{{re.sub(r'[^A-Za-z0-9:._-]', '-', label)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
