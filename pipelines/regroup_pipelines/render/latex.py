"""Tables as LaTeX with booktabs; every cell is escaped."""

from __future__ import annotations

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{each: f"\\{each}" for each in "&%$#_{}"},
    # LaTeX would read a bracket at the start of a row as an option of the preceding line break.
    "[": "{[}",
    "]": "{]}",
}


def escaped(text: str) -> str:
    """Escape `text` so that LaTeX prints it literally."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def latex_table(heads: list[str], rows: list[list[str]], title: str, note: str, label: str) -> str:
    """Return a `table` environment that needs booktabs; the first column is left-aligned."""
    lines = [" & ".join(map(escaped, row)) + r" \\" for row in [heads, *rows]]
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(title)}. {escaped(note)}}}",
            rf"\label{{{label}}}",
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
