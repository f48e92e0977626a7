"""The form of error messages and of what readers are told: read off the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.house.figures import ROOT, House

# Sentences may begin with these although they are capital: names.
NAMES = ("Ray", "REGroup", "AutoAttack", "Numba", "GPU", "CUDA", "S3", "JSON", "WNID", "PGD", "PMF")
# Not in the repository, or nothing that a reader of it can use.
PHRASES = re.compile(
    r"DESIGN(\.md| §)|\b(was|were) lent\b|cannot be[ ]meant|what (came|became) of|for ever\b|"
    r"\b(one|a|an) (forward|backward) pass an? |\b(images|samples|rows) an? (class|block|image)\b",
    re.IGNORECASE,
)
FOLDERS = ("regroup", "store", "cluster", "pipelines", "benchmarks", "docs", "examples")
READ = ("*.py", "*.md", "*.toml", "*.html", "*.js", "*.yaml")


def messages() -> Iterator[tuple[str, str]]:
    """(where, text) of every literal message that is raised; `{}` stands for what is filled in."""
    for module in House.read().modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                for argument in node.exc.args:
                    if (text := _literal(argument)) and " " in text:
                        yield f"{module.name}:{argument.lineno}", text


def _literal(node: ast.expr) -> str:
    """The text of a literal, an f-string or a sum of them; "" for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal(each) or "{}" for each in node.values)
    if isinstance(node, ast.BinOp):
        return _literal(node.left) + _literal(node.right)
    return ""


def wrong_form(text: str) -> bool:
    """Whether a message begins with a capital that is no name, or ends with a full stop."""
    first = text.split()[0].strip(",:'s")
    capital = first[:1].isupper() and not first.startswith(NAMES) and not first.isupper()
    return capital or text.rstrip().endswith(".")


def phrases() -> Iterator[str]:
    """Every place that says what `PHRASES` names, tests apart."""
    for path in sorted(_read()):
        text = path.read_text(encoding="utf-8")
        for found in PHRASES.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{path.relative_to(ROOT)}:{line}: {found[0]!r}"


def _read() -> Iterator[Path]:
    """What people read, at the top and in the folders of ours."""
    for pattern in READ:
        yield from ROOT.glob(pattern)
        for folder in FOLDERS:
            yield from (ROOT / folder).rglob(pattern)
