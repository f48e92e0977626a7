"""Figures of the tree, and the most that each may be: circles, folders, files, imports, names.

Run as `python -m tests.house`; exit status 1 where a figure is past its bound.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "regroup": ROOT / "regroup",
    "regroup_store": ROOT / "store" / "regroup_store",
    "regroup_cluster": ROOT / "cluster" / "regroup_cluster",
    "regroup_pipelines": ROOT / "pipelines" / "regroup_pipelines",
}
# What a function may import of ours, and why it does not stand at the top.
LATE_IMPORTS = {
    ("regroup_pipelines.cli", "regroup_pipelines.configs.table"): "the help page shows at once",
    ("regroup_pipelines.schema.attack_options", "regroup.attacks"): "imports torch",
    ("regroup_pipelines.schema.attack_options", "regroup.attacks.presets"): "imports torch",
    ("regroup.kernels.sign_sums", "regroup.kernels"): "Numba is optional",
    ("regroup_pipelines.steps.session", "regroup_cluster.dispatch.actor_pool"): "imports ray",
    ("regroup_pipelines.steps.session", "regroup_cluster.dispatch.task_slots"): "imports ray",
}


@dataclass(frozen=True)
class Module:
    """A module of one of the packages."""

    name: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"))

    def imports(self, node: ast.AST | None = None) -> Iterator[str]:
        """Dotted names that are imported below a node, wherever; of ours alone."""
        for each in ast.walk(node or self.tree):
            if isinstance(each, ast.Import):
                names = [alias.name for alias in each.names]
            elif isinstance(each, ast.ImportFrom) and each.module:
                names = [f"{each.module}.{alias.name}" for alias in each.names]
            else:
                continue
            yield from (name for name in names if name.split(".")[0] in PACKAGES)

    def late_imports(self) -> Iterator[str]:
        """What functions import of ours."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from (name.rpartition(".")[0] for name in self.imports(node))

    def public_names(self) -> Iterator[str]:
        """Classes, functions and constants at the top level, without an underscore."""
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            else:
                continue
            yield from (name for name in names if not name.startswith("_"))


@dataclass
class House:
    """Every module of the packages, and what is counted over them."""

    modules: dict[str, Module] = field(default_factory=dict)

    @classmethod
    def read(cls) -> House:
        found = {}
        for package, folder in PACKAGES.items():
            for path in sorted(folder.rglob("*.py")):
                parts = path.relative_to(folder).with_suffix("").parts
                name = ".".join([package, *(part for part in parts if part != "__init__")])
                found[name] = Module(name, path)
        return cls(found)

    def target(self, name: str) -> str:
        """The module that a dotted name lies in; "" for none."""
        while name and name not in self.modules:
            name = name.rpartition(".")[0]
        return name

    def circles(self) -> list[list[str]]:
        """Groups of modules that import each other, by way of others too (Tarjan 1972)."""
        graph = {
            name: {self.target(each) for each in module.imports()} - {"", name}
            for name, module in self.modules.items()
        }
        return [group for group in _components(graph) if len(group) > 1]

    def late_imports(self) -> list[tuple[str, str]]:
        """(module, what a function of it imports) of ours."""
        return [(m.name, late) for m in self.modules.values() for late in m.late_imports()]

    def largest_folder(self) -> tuple[int, Path]:
        counts = Counter(module.path.parent for module in self.modules.values())
        folder, count = counts.most_common(1)[0]
        return count, folder.relative_to(ROOT)

    def untyped_objects(self) -> int:
        """How often the pipelines spell the type of a JSON object out."""
        mine = (m for m in self.modules.values() if m.name.startswith("regroup_pipelines"))
        return sum(m.path.read_text(encoding="utf-8").count("dict[str, Any]") for m in mine)

    def repeated_names(self) -> dict[str, list[str]]:
        """Public names that several modules define, entry points and oracles apart."""
        found: dict[str, list[str]] = defaultdict(list)
        for module in self.modules.values():
            for name in set(module.public_names()) - {"main"}:
                found[name].append(module.name)
        return {name: where for name, where in found.items() if len(where) > 1}

    def long_files(self) -> list[str]:
        texts = {m.name: m.path.read_text(encoding="utf-8") for m in self.modules.values()}
        return [name for name, text in texts.items() if text.count("\n") > 400]


def _components(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of a graph."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            start = stack.index(node)
            found.append(stack[start:])
            del stack[start:]

    for node in graph:
        if node not in index:
            visit(node)
    return found


@dataclass(frozen=True)
class Figure:
    """One figure, its bound, and what it counts."""

    what: str
    value: int
    bound: int
    which: str = ""

    @property
    def kept(self) -> bool:
        return self.value <= self.bound


def figures(house: House) -> list[Figure]:
    """Every figure that is kept."""
    circles, late, names = house.circles(), house.late_imports(), house.repeated_names()
    unknown = [each for each in late if each not in LATE_IMPORTS]
    count, folder = house.largest_folder()
    return [
        Figure("import circles", len(circles), 0, "; ".join(map(", ".join, circles))),
        Figure("own imports inside functions", len(late), 25),
        Figure("of these without a reason", len(unknown), 0, str(unknown)),
        Figure("files in the largest folder", count, 24, str(folder)),
        Figure("dict[str, Any] in the pipelines", house.untyped_objects(), 30),
        Figure("public names of several modules", len(names), 8, ", ".join(sorted(names))),
        Figure("files over 400 lines", len(house.long_files()), 0, ", ".join(house.long_files())),
    ]
