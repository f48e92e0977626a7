"""docs/performance.md has the numbers of the committed results."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.tables import PAGE, RESULTS, filled, main, markdown

ROW = {
    "kind": "row", "what": "ours", "baseline": "theirs", "measure": "gain",
    "ratio": 12.345, "lowest": 9.8765, "highest": 123.4, "target": 15, "met": False,
    "peak": 2_400_000, "baseline_peak": None,
}  # fmt: skip


def test_the_page_is_as_the_results_have_it() -> None:
    page = PAGE.read_text()
    assert filled(page, RESULTS) == page
    assert page.count("<!-- /") == len([*RESULTS.glob("*.json")]), "every result has its table"


def test_a_line_of_each_kind() -> None:
    fact = {"kind": "fact", "what": "errors", "value": 0, "target": 0, "met": True}
    count = {"kind": "fact", "what": "passes", "value": 5184, "target": None, "met": True}
    skipped = {"kind": "skipped", "what": "that", "reason": "no GPU"}
    extra = {**ROW, "measure": "extra", "target": None, "ratio": 0.04, "peak": None}
    lines = markdown({"rows": [ROW, fact, count, skipped, extra]}).splitlines()[2:]
    assert lines == [
        "| ours | theirs | 12.3 | 9.877 to 123 | at least 15 | **not met** | 2 |  |",
        "| errors |  | 0 |  | at most 0 | met |  |  |",
        "| passes |  | 5184 |  |  |  |  |  |",
        "| that |  | not measured | no GPU |  |  |  |  |",
        "| ours | theirs | 0.040 s more | 9.877 to 123 |  |  |  |  |",
    ]


def test_check_changes_nothing_and_the_command_mends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- one -->\nold\n<!-- /one -->\nb\n")
    monkeypatch.setattr(tables, "PAGE", page)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert main(["--check"]) == 2
    (tmp_path / "one.json").write_text('{"rows": []}')
    assert main(["--check"]) == 1
    assert "old" in page.read_text()
    assert (main([]), main(["--check"])) == (0, 0)
    assert "old" not in page.read_text()
    assert page.read_text().startswith("a\n<!-- one -->\n| what |")
