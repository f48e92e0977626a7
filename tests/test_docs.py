"""What the documentation names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("page", "least"), [("reliability", 50), ("security", 0)])
def test_every_promise_names_a_test(page: str, least: int) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    named = NAMED.findall(text)
    assert len(named) >= least
    absent = [
        f"{file}::{name}" for file, name in named
        if not (ROOT / file).is_file() or name not in functions(ROOT / file)
    ]  # fmt: skip
    assert absent == []
    assert [row for row in promises(text) if not NAMED.search(row)] == []


def promises(text: str) -> list[str]:
    """The rows of the tables that are headed so."""
    tables = re.findall(r"^\| promise \| test \|\n\|.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [row for table in tables for row in table.splitlines()]
