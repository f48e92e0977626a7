"""What docs/architecture.md says of the tree is so: files, names, and the walk of a block."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
SOURCES = ("regroup", "store/regroup_store", "cluster/regroup_cluster", "pipelines")
ROW = re.compile(r"^\| (\d+) \| (.*) \| `([\w/]+\.py)` \|$", re.MULTILINE)
WALK = ROW.findall(PAGE)


def files() -> list[Path]:
    return [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")]


@cache
def defined(path: Path) -> frozenset[str]:
    """Names of all functions and classes of a file, methods included."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def test_the_walk_has_fourteen_calls_and_four_shapes() -> None:
    assert [int(number) for number, _, _ in WALK] == list(range(1, 15))
    shapes = re.findall(r"\*\*`?(\w[\w ]*\w)`?\*\*", " ".join(text for _, text, _ in WALK))
    assert shapes == ["arrays", "VoteSummary", "row record", "Cell"]


@pytest.mark.parametrize(("number", "text", "file"), WALK)
def test_a_call_is_where_the_walk_says(number: str, text: str, file: str) -> None:
    names = [name for found in re.findall(r"`([A-Za-z_.]+)`", text) for name in found.split(".")]
    here = defined(ROOT / file)
    everywhere = {name for path in files() for name in defined(path)}
    calls = [name for name in names if name not in ("results", "json")]
    assert calls[0] in here or number in ("10", "11", "12", "13", "14")
    assert any(name in here for name in calls)
    assert [name for name in calls if name not in everywhere] == []


def test_files_that_the_words_name_are_there() -> None:
    """Paths of the tables may leave out the folders above them."""
    (table,) = re.findall(r"^## Words\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    named = re.findall(r"`([\w/]+\.py)`", table)
    known = ["/" + path.relative_to(ROOT).as_posix() for path in files()]
    assert len(named) > 30
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in known)] == []


def test_no_word_is_explained_twice() -> None:
    (table,) = re.findall(r"^## Words\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    words = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", table, re.MULTILINE)
    single = [word for words_of_row in words[1:] for word in words_of_row.split(", ")]
    assert len(single) > 45
    assert len(single) == len(set(single))


def test_every_folder_of_the_packages_is_listed() -> None:
    (table,) = re.findall(r"^## The folders\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    listed = set(re.findall(r"`(?:[\w/]+/)?(\w+)/`", table))
    folders = {path.name for folder in SOURCES for path in (ROOT / folder).rglob("*/")
               if (path / "__init__.py").is_file()}  # fmt: skip
    assert folders - listed == set()
