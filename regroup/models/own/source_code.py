"""The Python source of a user's network, hashed: its module, and what that imports of the project.

Comments, blank lines, layout and docstrings do not count: the syntax tree is hashed.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import inspect
import sys
from dataclasses import dataclass, field
from functools import cached_property
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_OURS = frozenset({"regroup", "regroup_store", "regroup_cluster", "regroup_pipelines"})
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_IMPORTING = frozenset({"import_module", "__import__"})
_COMPARED = ("co_qualname", "co_code", "co_names", "co_varnames")
_IGNORED = frozenset({"kind", "type_comment"})  # of a constant (u""), of an assignment


@dataclass(frozen=True)
class ModuleSource:
    """The source of one module.

    Attributes:
        name: dotted.
        text: as it stands in the file.
        package: the package that relative imports start from.
        path: of the file.
    """

    name: str
    text: bytes
    package: str
    path: str

    @cached_property
    def tree(self) -> ast.Module | None:
        """The syntax tree; None where this is no Python that can be read."""
        try:
            return ast.parse(self.text)
        except (SyntaxError, ValueError):
            return None

    def canonical(self) -> bytes:
        """Return what is hashed: the tree, without what changes nothing."""
        return self.text if self.tree is None else "\n".join(_lines(self.tree)).encode()

    def imported(self) -> Iterator[str]:
        """Yield the dotted names that could be modules, of all imports, in functions too."""
        for node in ast.walk(self.tree) if self.tree else ():
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = self._above(node)
                yield above
                yield from (f"{above}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Call):
                yield from self._by_call(node)

    def _above(self, node: ast.ImportFrom) -> str:
        """Return the absolute name of what a `from` statement imports from."""
        if not node.level:
            return node.module or ""
        parts = self.package.split(".")
        base = parts[: len(parts) - node.level + 1]
        return ".".join([*base, node.module] if node.module else base)

    def _by_call(self, node: ast.Call) -> Iterator[str]:
        """Yield the module of `import_module("name")`, where it is written out."""
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        name = getattr(node.args[0], "value", None) if node.args else None
        if called in _IMPORTING and isinstance(name, str):
            dots = len(name) - len(name.lstrip("."))
            above = self.package.split(".")[: -dots + 1 or None] if dots else []
            yield ".".join([*above, name.lstrip(".")])


def _lines(node: ast.AST, depth: int = 0) -> Iterator[str]:
    """Yield a tree line by line: alike in every Python, which `ast.dump` is not."""
    yield f"{depth} {type(node).__name__}"
    for name, value in ast.iter_fields(node):
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                if not _is_text(each):
                    yield f"{depth} .{name}"
                    yield from _lines(each, depth + 1)
            elif (each is not None or isinstance(value, list)) and name not in _IGNORED:
                yield f"{depth} .{name} {type(each).__name__} {each!r}"


def _is_text(node: ast.AST) -> bool:
    """Return whether a statement is a docstring, or another string that nothing is done with."""
    constant = node.value if isinstance(node, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)


@dataclass
class Project:
    """What belongs to the same project as a module: neither Python's own, nor installed, nor ours.

    Attributes:
        module: dotted name of the module.
    """

    module: str
    _found: dict[str, ModuleSource | None] = field(default_factory=dict)
    _tops: dict[str, bool] = field(default_factory=dict)

    @cached_property
    def _root(self) -> Path | None:
        """The folder from which the module is imported."""
        spec = _spec_of(self.module.partition(".")[0])
        return _folder_of(spec) if spec else None

    def has(self, name: str) -> bool:
        """Return whether module `name` belongs to the project."""
        top = name.partition(".")[0]
        if top not in self._tops:
            self._tops[top] = self._has_top(top)
        return self._tops[top]

    def _has_top(self, top: str) -> bool:
        if top == self.module.partition(".")[0]:
            return True
        if not top or top in _OURS or top in sys.stdlib_module_names:
            return False
        spec = _spec_of(top)
        folder = _folder_of(spec) if spec else None
        if folder is None or _INSTALLED & set(folder.parts):
            return False
        return folder == self._root or top not in importlib.metadata.packages_distributions()

    def sources(self, names: Iterable[str]) -> list[ModuleSource]:
        """Return the sources of `names` and of all that they import, by name."""
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in self._found:
                self._found[name] = self._read(name) if self.has(name) else None
                waiting += self._next(name)
        return [source for _, source in sorted(self._found.items()) if source is not None]

    def _next(self, name: str) -> Iterator[str]:
        """Yield the package of a module, which Python runs too, and what it imports."""
        if name.rpartition(".")[0]:
            yield name.rpartition(".")[0]
        if (source := self._found[name]) is not None:
            yield from source.imported()

    def _read(self, name: str) -> ModuleSource | None:
        spec = _spec_of(name)
        text = _text_of(spec) if spec else None
        if spec is None or text is None:
            return None
        package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
        return ModuleSource(name, text, package, str(spec.origin))


def _folder_of(spec: ModuleSpec) -> Path | None:
    """Return the folder in which a package's folder or a module's file lies."""
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve().parent
    return Path(spec.origin).resolve().parent if spec.origin and spec.has_location else None


def _spec_of(name: str) -> ModuleSpec | None:
    """Return where a module is, without importing it or its packages."""
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if isinstance(loaded, ModuleSpec):
        return loaded
    above, path = name.rpartition(".")[0], None
    if above:
        package = _spec_of(above)
        if package is None or package.submodule_search_locations is None:
            return None
        path = list(package.submodule_search_locations)
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except (ImportError, AttributeError, ValueError):
            continue
        if spec is not None:
            return spec
    return None


def _text_of(spec: ModuleSpec) -> bytes | None:
    """Return a module's source; None of a compiled one, or of a folder without `__init__.py`."""
    try:
        if spec.origin and spec.origin.endswith((".py", ".pyc")) and Path(spec.origin).is_file():
            return Path(spec.origin).read_bytes()
        read = getattr(spec.loader, "get_source", None)
        text = read(spec.name) if read else None
    except (OSError, ImportError, ValueError):
        return None
    return None if text is None else str(text).encode()


def source_sha256(project: Project, others: Iterable[str]) -> str:
    """Hash the source of the project's module, of all it imports, and of `others` likewise.

    Args:
        project: of the user's module, which is imported.
        others: names of modules that a network was found to be made of.

    Raises:
        ConfigurationError: a file was edited after this process had imported it.
    """
    digest = hashlib.sha256()
    for source in project.sources([project.module, *others]):
        _require_as_imported(source)
        text = source.canonical()
        digest.update(f"{source.name} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()


def _require_as_imported(source: ModuleSource) -> None:
    """Refuse a file that is not what this process runs: it was edited after it was imported."""
    module = sys.modules.get(source.name)
    spec = getattr(module, "__spec__", None)
    if source.tree is None or spec is None or type(spec.loader) is not SourceFileLoader:
        return  # not imported, or rewritten on import, as pytest does
    in_file = list(_codes(compile(source.tree, source.path, "exec", dont_inherit=True)))
    for code in _loaded_codes(vars(module), source):
        if not any(_same(code, other) for other in in_file):
            raise ConfigurationError(
                f"{source.path} is not what this process runs ({code.co_qualname} differs): it was "
                "edited after it was imported, or an old __pycache__ stands for it: remove that "
                "and start Python anew"
            )


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _loaded_codes(names: dict[str, object], source: ModuleSource) -> Iterator[CodeType]:
    """Yield the code of the functions and methods that a module defines with a name."""
    for value in names.values():
        if isinstance(value, type) and value.__module__ == source.name:
            methods = [each for each in vars(value).values() if isinstance(each, FunctionType)]
        else:
            methods = [value] if isinstance(value, FunctionType) else []
        for function in methods:
            code = inspect.unwrap(function).__code__
            named = "<" not in code.co_qualname
            if named and Path(code.co_filename).resolve() == Path(source.path).resolve():
                yield code


def _same(code: CodeType, other: CodeType) -> bool:
    """Return whether two codes do the same, wherever their lines stand."""
    if any(getattr(code, each) != getattr(other, each) for each in _COMPARED):
        return False
    mine, theirs = list(code.co_consts), list(other.co_consts)
    if mine and theirs and isinstance(mine[0], str) and isinstance(theirs[0], str):
        mine[0] = theirs[0]  # the docstring, where there is one
    return len(mine) == len(theirs) and all(map(_same_constant, mine, theirs))


def _same_constant(one: object, two: object) -> bool:
    if isinstance(one, CodeType) and isinstance(two, CodeType):
        return _same(one, two)
    return type(one) is type(two) and (one == two or repr(one) == repr(two))
