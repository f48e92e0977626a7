"""The results of a study in a store: written in this schema, read in every earlier one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from regroup_pipelines.results.records import RESULTS_VERSION, StudyResults
from regroup_pipelines.results.version_1 import from_version_1
from regroup_store.errors import SchemaVersionError, StoreUsageError
from regroup_store.kinds.studies import read_study, study_names, write_study

if TYPE_CHECKING:
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.store import Store


def read_results(store: Store, name: str) -> StudyResults:
    """The results of a study.

    Raises:
        StoreUsageError: there are none, or they hold something that this release cannot read.
        SchemaVersionError: they are of a later schema.
        DamagedError: they do not match their checksum.
    """
    return parse_results(read_study(store, name), f"the results of {name} in {store.uri}")


def parse_results(plain: JsonObject, where: str) -> StudyResults:
    """Results from plain JSON of this schema or an earlier one; see `read_results`."""
    version = plain.get("schema_version", 1)
    if isinstance(version, int) and version > RESULTS_VERSION:
        raise SchemaVersionError(
            f"{where} have schema version {version}, this release reads versions up to "
            f"{RESULTS_VERSION}: install a newer release of regroup-ray"
        )
    try:
        current = from_version_1(plain) if version == 1 else plain
        return StudyResults.model_validate_json(json.dumps(current))
    except (ValidationError, LookupError, TypeError, AttributeError) as error:
        raise StoreUsageError(
            f"{where} cannot be read ({_first(error)}): run the study again with this release"
        ) from error


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    first: Any = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def keep_results(store: Store, results: StudyResults) -> None:
    """Write the results, unless the same numbers are there, with what computing them cost."""
    if results.study in study_names(store):
        try:
            kept: StudyResults | None = read_results(store, results.study)
        except StoreUsageError:
            kept = None
        if kept is not None and kept.without_cost() == results.without_cost():
            return
    write_study(store, results.study, results.plain())
