"""Hostile names through every kind of output: each shows them as text, and none obeys them."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from rich.table import Table as Grid
from rich.tree import Tree

from regroup_cluster.printable import printable
from regroup_pipelines.log import log, log_warnings
from regroup_pipelines.render.escapes import csv_table, csv_value, latex_text, markdown_text
from regroup_pipelines.render.plots import pyplot, save_figure
from regroup_pipelines.render.table import Cell, Table, csv_text
from regroup_pipelines.render.terminal import print_line, show
from regroup_pipelines.report_pages.site import Site

# What acts on terminals: a title, a link, colours in 8 bits, the cursor, right to left, a bell.
ACTING = [
    "\x1b]0;owned\x07", "\x1b]8;;http://evil/\x1b\\x", "\x9b31m", "\x1b[2J\x1b[H", "\u202egnp.exe",
    "\x07", "\x00", "\x7f", "\u2028", "\udcff", "\u2066", "\u200b", "\r100 % done", "\x08\x08",
    "\ufeff", "\U000e0041",
]  # fmt: skip
FORMULAS = [
    "=1+2", "+1+2", "-1+2", "@SUM(A1)", "\t=1", "\r=1", " =cmd|'/c calc'!A0", "\uff1d1", "--1",
    "-", "=", "-1.5", "+2", "-.5e-3", "1-2", "a=b", "", "-1.5x",
]  # fmt: skip
HARMLESS = {"-", "-1.5", "+2", "-.5e-3", "1-2", "a=b", ""}
MARKUP = "[red]x[/red] [/] [link=http://evil]y[/link] :warning:"


@pytest.mark.parametrize("text", ACTING)
def test_what_acts_is_spelt_out(text: str) -> None:
    shown = printable(f"a{text}b")
    assert shown.isprintable()
    assert shown.encode()
    assert re.fullmatch(r"a.*\\[xuU][0-9a-f]{2,8}.*b", shown)


@pytest.mark.parametrize(
    "text", ["naïve 猫 🐈", "a\tb\nc", "e\u0301", "\u0645\u06cc\u200c\u062e", "[red]", "\\x1b"]
)
def test_what_is_seen_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_tables_trees_and_lines_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "2000")
    hostile = " ".join([MARKUP, *ACTING])
    grid = Grid(title=hostile, caption=hostile)
    grid.add_column(f"head {hostile}")
    grid.add_row(f"cell {hostile}")
    tree = Tree(f"root {hostile}")
    tree.add(f"leaf {hostile}")
    grid.add_row(tree)
    show(grid, quiet=False)
    print_line(f"line {hostile}", quiet=False)
    log(f"log {hostile}")
    out, err = capsys.readouterr()
    for place in ("head", "cell", "root", "leaf", "line"):
        assert f"{place} {printable(hostile)}" in out
    assert err == f"log {printable(hostile)}\n"
    for text in ACTING:
        assert text not in out + err
    assert {*re.findall(r"\x1b.[^a-zA-Z]*.", out)} <= {"\x1b[0m", "\x1b[1m", "\x1b[3m", "\x1b[2;3m"}


def test_a_name_writes_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    log("cannot read a\nregroup verify: Nothing is damaged.")
    assert capsys.readouterr().err.splitlines()[1].startswith("    regroup verify")


def test_a_warning_is_one_line_of_log(capsys: pytest.CaptureFixture[str]) -> None:
    import warnings

    with log_warnings():
        warnings.simplefilter("always")
        for _ in range(2):
            warnings.warn("fell\nback \x1b[31m", stacklevel=1)
        warnings.warn("another", RuntimeWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: fell back \\x1b[31m\nwarning: another\n"


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_text_in_csv_and_a_number_stays_one(text: str) -> None:
    expected = text if text in HARMLESS else f"'{text}"
    assert csv_value(text) == expected
    ((head,), (cell,)) = csv.reader(io.StringIO(csv_text([{text or "x": text}]), newline=""))
    assert (head, cell) == (expected.replace("\r", "\n") or "x", expected.replace("\r", "\n"))
    found = csv_table(pa.table({"a": [text, None], "n": [-1.5, None]}))
    assert found.to_pydict() == {"a": [expected, None], "n": [-1.5, None]}


@pytest.mark.parametrize("value", [-1.5, -3, None, True])
def test_values_that_are_no_text_are_left_alone_in_csv(value: object) -> None:
    assert csv_value(value) is value


def test_markdown_has_no_further_cell_line_link_or_tag() -> None:
    hostile = "a|b\n# c <script>x</script> ![i](http://evil) [t](javascript:x)"
    table = Table("k", hostile, ["head", hostile], [[Cell(hostile), Cell("1")]])
    head, _, row = table.markdown.splitlines()
    for line, cells in ((head, 2), (row, 2)):
        assert len(re.findall(r"(?<!\\)\|", line)) == cells + 1
        assert "<script" not in line
        assert "](" not in line
    assert markdown_text("57.0 % [52.1, 61.8], k > 3 & _x_") == "57.0 % [52.1, 61.8], k > 3 & _x_"


def test_latex_has_no_command_line_or_paragraph() -> None:
    shown = latex_text("\\input{/etc/passwd}\n\n$x^2$ 50% & #1 ~ \x1b[0m")
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)[$%&#]", shown)
    assert shown.startswith(r"\textbackslash{}input\{/etc/passwd\} ")
    table = Table("k", "t", ["a", "b"], [[Cell("x"), Cell("y")]], label="t}\\input{evil")
    assert r"\label{t--input-evil}" in table.latex


def test_figures_draw_names_as_they_are(tmp_path: Path) -> None:
    figure, axis = pyplot().subplots()
    axis.set(title="$\\frac{$ \x1b[31m ]]> --> <b>", xlabel="a $x$ b $")
    save_figure(figure, tmp_path / "f.png")
    ElementTree.fromstring((tmp_path / "f.svg").read_text())  # it is XML
    assert (tmp_path / "f.png").stat().st_size > 1000


def test_pages_show_names_as_they_are(tmp_path: Path) -> None:
    page = Site(tmp_path, "", "")._templates.from_string("<i>{{ a }}</i>{{ [a]|tojson }}")
    shown = page.render(a="<b>\u202e\x1b[31m&'</b>")
    assert shown.startswith("<i>&lt;b&gt;\\u202e\\x1b[31m&amp;&#39;&lt;/b&gt;</i>")
    assert "<b>" not in shown
    assert json.loads(shown.partition("</i>")[2]) == ["<b>\u202e\x1b[31m&'</b>"]


def test_json_holds_names_exactly() -> None:
    rows = [{"name": text} for text in ACTING if text != "\udcff"]
    assert json.loads(Table("k", "t", [], [], rows).json) == rows  # type: ignore[arg-type]
