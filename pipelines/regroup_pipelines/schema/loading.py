"""Reading a study file: found by path or shipped name, `--set` applied, mistakes located."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from regroup_pipelines.errors import UsageError
from regroup_pipelines.schema.attacks import MistakeError, keys_of, near
from regroup_pipelines.schema.study import Study
from regroup_pipelines.schema.toml_file import TomlFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

    from regroup_pipelines.json_types import JsonObject

SHIPPED_STUDIES = Path(__file__).parents[1] / "studies"
NAMED = ("datasets", "banks", "subsets", "attacks", "sweeps")
_TYPES = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "an array",
    "dict_type": "a table",
    "dataclass_type": "a table",
}


def shipped_studies() -> dict[str, Path]:
    """The studies that come with the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED_STUDIES.glob("*.toml"))}


def find_study(study: str) -> Path:
    """The file that `study`, a path or the name of a shipped one, names; `UsageError`."""
    path, shipped = Path(study), shipped_studies()
    if path.is_file():
        return path
    if study in shipped:
        return shipped[study]
    raise UsageError(
        f"there is no study file {study}, and no shipped study {near(Path(study).stem, shipped)}"
    )


@dataclass(frozen=True)
class LoadedStudy:
    """A study and where it was read: `changed` are the key paths that --set gave."""

    study: Study
    file: TomlFile
    changed: tuple[tuple[str, ...], ...]

    def mistake(self, path: Sequence[str], text: str) -> UsageError:
        """The error that says where `text` holds."""
        return self.file.mistake(path, text, self.changed)


def load_study(path: Path, changes: Sequence[str] = (), data: str = "") -> LoadedStudy:
    """The study in `path` with `changes` ("key.path=VALUE") and `data` applied.

    Raises:
        UsageError: the file cannot be read, or holds what cannot be meant: one sentence with the
            file, the line, the key path and the nearest valid spelling.
    """
    file = TomlFile.read(path)
    tables = json.loads(json.dumps(file.tables, default=str))
    changed = tuple(_change(file, tables, change) for change in changes)
    if data:
        tables["data"] = data
    try:
        study = TypeAdapter(Study).validate_json(json.dumps(tables))
        study.check()
    except ValidationError as error:
        raise _mistake(file, error, changed) from None
    except MistakeError as error:
        raise file.mistake(error.path, str(error), changed) from None
    return LoadedStudy(study.expanded(), file, changed)


def _change(file: TomlFile, tables: JsonObject, change: str) -> tuple[str, ...]:
    """Apply one --set to `tables`; the key path that it changed."""
    key, equals, value = change.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise UsageError(f"--set {change}: give it as key.path=VALUE, as in attacks.pgd.limit=10")
    _check_named(file, tables, path)
    table = tables
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {key}: {part} is a value, with nothing in it to set")
    table[path[-1]] = _value(value.strip())
    return path


def _check_named(file: TomlFile, tables: Mapping[str, Any], path: tuple[str, ...]) -> None:
    """Refuse to add a dataset, bank or attack by a slip of the pen."""
    known = tables.get(path[0], {})
    if len(path) > 1 and path[0] in NAMED and isinstance(known, dict) and path[1] not in known:
        raise UsageError(
            f"--set {'.'.join(path)}: {file.path} has nothing under {path[0]} called "
            f"{near(path[1], known)}"
        )


def _value(text: str) -> Any:
    """`text` as a TOML value where it is one, else as a string: `10`, `true`, `4/255`."""
    try:
        return json.loads(json.dumps(tomllib.loads(f"value = {text}")["value"], default=str))
    except tomllib.TOMLDecodeError:
        return text


def _mistake(
    file: TomlFile, error: ValidationError, changed: Sequence[tuple[str, ...]]
) -> UsageError:
    """The first mistake, unknown keys before what else may follow from them."""
    details = sorted(error.errors(), key=lambda each: not _unknown(each))
    path = [str(part) for part in details[0]["loc"]]
    if details[0]["type"].startswith("missing"):
        text = f"the key {path.pop()} is missing"
    else:
        text = _sentence(details[0], path)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return file.mistake(path, text + more, changed)


def _unknown(detail: ErrorDetails) -> bool:
    return detail["type"] in ("unexpected_keyword_argument", "extra_forbidden")


def _sentence(detail: ErrorDetails, path: list[str]) -> str:
    kind, value = detail["type"], detail["input"]
    if _unknown(detail):
        return f"there is no key {near(path[-1], _known_keys(path[:-1]))}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        return f"there is no {near(str(value), choices)}"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind in _TYPES:
        return f"expected {_TYPES[kind]}, found {json.dumps(value, default=str)}"
    return f"{json.dumps(value, default=str)}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _known_keys(path: Sequence[str]) -> list[str]:
    """The keys of the table at `path`."""
    table: Any = Study
    for part in path:
        entries = get_origin(table) is dict
        table = get_args(table)[1] if entries else get_type_hints(table)[part]
    return keys_of(table)
