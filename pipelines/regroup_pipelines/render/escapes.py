"""Names and reasons from elsewhere, as each kind of file has to write them to hold plain text.

HTML pages are escaped by their templates, terminals by `regroup_pipelines.render.terminal`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from regroup_cluster.printable import printable

if TYPE_CHECKING:
    import pyarrow as pa

# What a spreadsheet takes for a formula (OWASP, "CSV Injection"), also in full width; and what of
# that is a number or a dash after all. Both are read by Python and by RE2.
_FORMULA = r"^\s*[=+\-@\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}]|^[\t\r\n]"
_NUMBER = r"^[+\-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+\-]?[0-9]+)?$|^-$"
_PYTHON_FORMULA = re.compile(re.sub(r"\\x\{(\w+)\}", r"\\u\1", _FORMULA))
_PYTHON_NUMBER = re.compile(_NUMBER)

_LATEX = {
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


def latex_text(text: str) -> str:
    """Escape `text` so that LaTeX prints it literally, in one line."""
    return "".join(_LATEX.get(letter, letter) for letter in _one_line(text))


def markdown_text(text: str) -> str:
    """Escape `text` for a line or a cell of Markdown: no HTML, no link, no further cell or line."""
    return _one_line(text).replace("<", "&lt;").replace("](", "]\\(").replace("|", "\\|")


def csv_value(value: object) -> object:
    """Return `value` for CSV: a text that a spreadsheet would compute begins with an apostrophe."""
    is_formula = isinstance(value, str) and _PYTHON_FORMULA.search(value)
    return f"'{value}" if is_formula and not _PYTHON_NUMBER.search(str(value)) else value


def csv_table(table: pa.Table) -> pa.Table:
    """Return `table` with every column of text as `csv_value` has it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for number, column in enumerate(table.schema):
        if column.type == pa.string():
            texts = table.column(number)
            number_like = pc.match_substring_regex(texts, _NUMBER)
            formula = pc.and_not(pc.match_substring_regex(texts, _FORMULA), number_like)
            marked = pc.binary_join_element_wise("'", texts, "")
            table = table.set_column(number, column, pc.if_else(formula, marked, texts))
    return table


def _one_line(text: str) -> str:
    return printable(re.sub(r"\s*[\r\n]+\s*", " ", text))
