"""Results of studies in a store: written in the current schema, read in every earlier one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from regroup_pipelines.results.records import RESULTS_VERSION, StudyResults
from regroup_pipelines.results.version_1 import from_version_1
from regroup_store.errors import DamagedError, SchemaVersionError
from regroup_store.kinds.studies import read_study, study_names, write_study

if TYPE_CHECKING:
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.store import Store


def read_results(store: Store, name: str) -> StudyResults:
    """Read the results of a study.

    Raises:
        StoreUsageError: there are none.
        SchemaVersionError: they have a later schema version.
        DamagedError: they do not match their checksum, or are no results.
    """
    where = f"the results of {name} in {store.uri}"
    found = parse_results(read_study(store, name), where)
    if found.study != name:
        raise DamagedError(
            f"{where} call themselves those of {found.study}: run the study again with this release"
        )
    return found


def parse_results(plain: JsonObject, where: str) -> StudyResults:
    """Parse results from plain JSON of this schema version or an earlier one.

    Args:
        plain: the content of `results.json`.
        where: names the results in error messages.

    Raises:
        DamagedError: they cannot be read.
        SchemaVersionError: they have a later schema version.
    """
    version = plain.get("schema_version", 1)
    if isinstance(version, int) and version > RESULTS_VERSION:
        raise SchemaVersionError(
            f"{where} have schema version {version}, this release reads versions up to "
            f"{RESULTS_VERSION}: install a newer release of regroup-ray"
        )
    try:
        current = from_version_1(plain) if version == 1 and version is not True else plain
        return StudyResults.model_validate_json(json.dumps(current))
    except (ValidationError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{where} cannot be read ({_first(error)}): run the study again with this release"
        ) from error


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    first: Any = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def kept_results(store: Store, name: str) -> StudyResults | None:
    """Return the results that a run of a study replaces, or None where none can be read.

    Raises:
        SchemaVersionError: they are of a later schema; an earlier release does not replace them.
    """
    try:
        return read_results(store, name) if name in study_names(store) else None
    except SchemaVersionError:
        raise
    except DamagedError:
        return None


def damaged_results(store: Store, name: str) -> str | None:
    """Say why the stored results of a study are not what was written; None where they are."""
    try:
        kept_results(store, name)
        if name in study_names(store):
            read_study(store, name)
    except DamagedError as error:
        return str(error)
    return None


def keep_results(store: Store, results: StudyResults) -> None:
    """Write the results, unless the store has the same numbers, with the cost of computing them."""
    kept = kept_results(store, results.study)
    if kept is None or kept.without_cost() != results.without_cost():
        write_study(store, results.study, results.plain())
