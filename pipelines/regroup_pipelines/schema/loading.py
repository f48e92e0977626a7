"""Load a study file: find it by path or shipped name, apply `--set`, locate mistakes."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from regroup_pipelines.errors import UsageError
from regroup_pipelines.schema.attacks import MistakeError, keys_of
from regroup_pipelines.schema.spelling import suggestion
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
    """Return the study files that come with the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED_STUDIES.glob("*.toml"))}


def find_study(study: str) -> Path:
    """Find a study file by its path or by the name of a shipped study.

    Raises:
        UsageError: there is neither such a file nor such a shipped study.
    """
    path, shipped = Path(study), shipped_studies()
    if path.is_file():
        return path
    if study in shipped:
        return shipped[study]
    nearest = suggestion(Path(study).stem, shipped)
    raise UsageError(f"there is no study file {study}, and no shipped study {nearest}")


@dataclass(frozen=True)
class LoadedStudy:
    """A study and the file it was read from.

    Attributes:
        study: the study, with the attacks of its sweeps expanded.
        file: the file, to locate mistakes in.
        changed: the key paths that --set changed.
    """

    study: Study
    file: TomlFile
    changed: tuple[tuple[str, ...], ...]

    def mistake(self, path: Sequence[str], text: str) -> UsageError:
        """Return an error that says where in the file, or in --set, the mistake `text` is."""
        return self.file.mistake(path, text, self.changed)


def load_study(path: Path, changes: Sequence[str] = (), data: str = "") -> LoadedStudy:
    """Load the study in `path` and check it.

    Args:
        path: the file.
        changes: texts of --set, each "key.path=VALUE".
        data: replaces the key `data`, unless empty.

    Raises:
        UsageError: the file cannot be read or holds an invalid value; the message has the file,
            the line, the key path and the nearest valid spelling.
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
    """Apply one --set to `tables`; return the key path that it changed."""
    key, equals, value = change.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise UsageError(f"--set {change}: give it as key.path=VALUE, as in attacks.pgd.limit=10")
    _check_named(file, tables, path)
    table = tables
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {key}: {part} is a value, not a table")
    table[path[-1]] = _value(value.strip())
    return path


def _check_named(file: TomlFile, tables: Mapping[str, Any], path: tuple[str, ...]) -> None:
    """Refuse a --set below an undeclared dataset, bank or attack: the name is probably misspelt."""
    known = tables.get(path[0], {})
    if len(path) > 1 and path[0] in NAMED and isinstance(known, dict) and path[1] not in known:
        raise UsageError(
            f"--set {'.'.join(path)}: {file.path} has nothing under {path[0]} called "
            f"{suggestion(path[1], known)}"
        )


def _value(text: str) -> Any:
    """Parse `text` as a TOML value (`10`, `true`), or else take it as a string (`4/255`)."""
    try:
        return json.loads(json.dumps(tomllib.loads(f"value = {text}")["value"], default=str))
    except tomllib.TOMLDecodeError:
        return text


def _mistake(
    file: TomlFile, error: ValidationError, changed: Sequence[tuple[str, ...]]
) -> UsageError:
    """Return the first mistake; unknown keys come first, since others may follow from them."""
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
        return f"there is no key {suggestion(path[-1], _known_keys(path[:-1]))}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        return f"there is no {suggestion(str(value), choices)}"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind in _TYPES:
        return f"expected {_TYPES[kind]}, found {json.dumps(value, default=str)}"
    return f"{json.dumps(value, default=str)}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _known_keys(path: Sequence[str]) -> list[str]:
    """Return the keys that the table at `path` may have."""
    table: Any = Study
    for part in path:
        entries = get_origin(table) is dict
        table = get_args(table)[1] if entries else get_type_hints(table)[part]
    return keys_of(table)
