"""Verification of zarr's metadata, which must describe the arrays of the manifest."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.metadata import ArrayV3Metadata

from regroup_store.errors import DamagedError
from regroup_store.format.arrays import ArraySpec, array_metadata, open_array
from regroup_store.format.fingerprint import parse_record
from regroup_store.maintenance.findings import Finding, reading_error, zarr_reading_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regroup_store.backends.base import Backend
    from regroup_store.format.block_plan import BlockPlan
    from regroup_store.format.manifests import Location

GROUP = {"attributes": {}, "node_type": "group", "zarr_format": 3}


def check_metadata(
    backend: Backend, location: Location, specs: Sequence[ArraySpec], plan: BlockPlan
) -> tuple[list[Finding], list[ArraySpec]]:
    """Check zarr's metadata.

    Returns:
        The findings, and the arrays whose metadata is sound.
    """
    findings, sound = [], []
    roots = dict.fromkeys(s.path.partition("/")[0] for s in specs if "/" in s.path)
    for name in (f"{root}/zarr.json" for root in roots):
        if error := reading_error(_require_group, backend, location.key(name)):
            findings.append(Finding.from_error(error, "metadata", location, name))
    for spec in specs:
        name = f"{spec.path}/zarr.json"
        read = partial(_require_array, backend, location, spec, plan)
        if error := zarr_reading_error(backend, [location.key(name)], read):
            findings.append(Finding.from_error(error, "metadata", location, name))
            continue
        sound.append(spec)
        if not _is_as_composed(backend, location, spec, plan):
            problem = (
                "its codecs or its spelling are not those that this release writes: the values "
                "are compared all the same"
            )
            findings.append(Finding.at("note", "metadata", location, name, problem))
    return findings, sound


def _require_group(backend: Backend, key: str) -> None:
    """Check what other zarr readers need to list the arrays of a group."""
    where = f"{key} of the store {backend.uri}"
    record = parse_record(backend.read(key), where)
    if (record.get("node_type"), record.get("zarr_format")) != ("group", 3):
        raise DamagedError(f"{where} is not the metadata of a group")
    _require_equal(record, GROUP, where, "consolidated_metadata")


def _require_array(backend: Backend, location: Location, spec: ArraySpec, plan: BlockPlan) -> None:
    """Check that an array has the shape, chunks, dtype and fill value that follow from the plan."""
    open_array(backend, location, spec, plan.rows, plan.block_rows)
    key = location.key(spec.path, "zarr.json")
    where = f"{key} of the store {backend.uri}"
    stored = parse_record(backend.read(key), where)
    planned = array_metadata(spec, plan.rows, plan.block_rows)
    composed = parse_record(planned[_own(spec)], where)
    _require_equal(_normal(stored), _normal(composed), where, "codecs")


def _require_equal(
    stored: dict[str, Any], planned: dict[str, Any], where: str, ignored: str
) -> None:
    names = (stored.keys() | planned.keys()) - {ignored}
    for name in sorted(names):
        if stored.get(name) != planned.get(name):
            raise DamagedError(
                f"{where} states {name} {str(stored.get(name))[:80]}, but the manifest's is "
                f"{str(planned.get(name))[:80]}"
            )


def _normal(record: dict[str, Any]) -> dict[str, Any]:
    """The record as this release of zarr writes it, so that only meanings are compared."""
    metadata = ArrayV3Metadata.from_dict(record)
    written = metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes()
    found: dict[str, Any] = json.loads(written)
    return found


def _own(spec: ArraySpec) -> str:
    """Name of an array's own metadata below its `<x>.zarr`."""
    member = spec.path.partition("/")[2]
    return f"{member}/zarr.json" if member else "zarr.json"


def _is_as_composed(backend: Backend, location: Location, spec: ArraySpec, plan: BlockPlan) -> bool:
    """Whether the metadata is member by member what this release writes."""
    composed = array_metadata(spec, plan.rows, plan.block_rows)[_own(spec)]
    stored = backend.read(location.key(spec.path, "zarr.json"))
    found: bool = json.loads(stored) == json.loads(composed)
    return found
