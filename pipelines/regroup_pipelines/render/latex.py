"""The paper's tables as LaTeX: booktabs, every cell escaped."""

from __future__ import annotations

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{each: f"\\{each}" for each in "&%$#_{}"},
    # A cell that begins with a bracket would be an option of the line break before it.
    "[": "{[}",
    "]": "{]}",
}


def escaped(text: str) -> str:
    """`text` as LaTeX shows it letter by letter."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def latex_table(heads: list[str], rows: list[list[str]], title: str, note: str, label: str) -> str:
    """A `table` that takes `\\usepackage{booktabs}`; the first column to the left."""
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
