"""Every repository path and every dotted module name that the documentation mentions exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
_TOP = [path for name in ("README.md", "CONTRIBUTING.md") if (path := ROOT / name).exists()]
PAGES = [*_TOP, *sorted((ROOT / "docs").rglob("*.md"))]
# Where a dotted name may begin, and the folder that its package is in.
PACKAGES = {
    "regroup": ".",
    "regroup_store": "store",
    "regroup_cluster": "cluster",
    "regroup_pipelines": "pipelines",
    "benchmarks": ".",
    "tests": ".",
}
# Paths below these folders are the repository's; `runs/...` or `data/...` are a user's.
FOLDERS = ("regroup", "store", "cluster", "pipelines", "benchmarks", "tests", "docs", "examples")
# The packages before they were prefixed: no example may import them.
FORMER = ("store", "cluster", "pipelines")
# What stands for any name: `python -m benchmarks.NAME`.
PLACEHOLDER = "NAME"
OURS = (*PACKAGES, *FORMER)

DOTTED = re.compile(rf"(?<![\w./@-])(?:{'|'.join(PACKAGES)})(?:\.\w+)+")
PATH = re.compile(rf"(?<![\w./:-])(?:{'|'.join(FOLDERS)})/[\w./*-]*")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
FILE_ENDINGS = {"py", "md", "json", "toml", "html", "css", "js", "yaml", "txt", "parquet"}


def module_of(dotted: str) -> tuple[Path, list[str]] | None:
    """The longest prefix of a dotted name that is a module, and the names after it."""
    words = dotted.split(".")
    if words[0] in FORMER:
        return None
    folder = ROOT / PACKAGES[words[0]]
    for length in range(len(words), 0, -1):
        place = folder.joinpath(*words[:length])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path, words[length:]
    return None


def names_in(path: Path) -> set[str]:
    """The top-level names of a module, imported ones included, and of its classes."""
    return {name for node in ast.parse(path.read_text()).body for name in bound_by(node)}


def bound_by(node: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or something that a module binds."""
    if (found := module_of(dotted)) is None:
        return False
    path, rest = found
    return not rest or rest[0] in names_in(path)


def dotted_names(text: str) -> Iterator[str]:
    """The dotted module names in a page, without file names such as `benchmarks.json`."""
    for match in DOTTED.finditer(text):
        if match[0].rpartition(".")[2] not in {PLACEHOLDER, *FILE_ENDINGS}:
            yield match[0]


def imported(text: str) -> Iterator[str]:
    """The dotted names that the Python blocks of a page import from our packages."""
    for block in BLOCK.findall(text):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from (a.name for a in node.names if a.name.split(".")[0] in OURS)


def there(path: str) -> bool:
    """Whether a path exists in the repository, or any path that matches its wildcards."""
    cleaned = path.rstrip("./")
    return bool(list(ROOT.glob(cleaned))) if "*" in cleaned else (ROOT / cleaned).exists()


def absent(page: Path) -> list[str]:
    """The names on a page that are not in the repository."""
    text = page.read_text()
    paths = set(PATH.findall(text))
    links = {link for link in LINK.findall(text) if "://" not in link}
    return sorted(
        {name for name in (*dotted_names(text), *imported(text)) if not exists(name)}
        | {path for path in paths if not there(path)}
        | {link for link in links if not (page.parent / link).exists()}
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    assert absent(page) == []


def test_names_of_the_past_are_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`regroup.heap.keep`, `regroup.kernels.allocator.keep_freed_memory()`, `regroup/heap.py`,\n"
        "`python -m benchmarks.together`\n"
        "`regroup.kernels.allocator.nothing`, `cluster/*/actors.py`\n"
        "[gone](gone.md)\n\n```python\nfrom pipelines.robust import x\n"
        "from regroup_pipelines.robust import gone\n```\n"
    )
    assert absent(page) == [
        "benchmarks.together",
        "cluster/*/actors.py",
        "gone.md",
        "pipelines.robust.x",
        "regroup.heap.keep",
        "regroup.kernels.allocator.nothing",
        "regroup/heap.py",
        "regroup_pipelines.robust.gone",
    ]
