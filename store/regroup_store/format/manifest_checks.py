"""What a manifest must hold before any of it is used: the members of its kind, within bounds.

A seal proves that a manifest is what somebody wrote, not that it describes an element. What is
refused here would otherwise be a size to allocate, or an error far from its cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from regroup_store.errors import DamagedError
from regroup_store.format.block_plan import MOST_PLANNED_ROWS, BlockPlan

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a chunk can hold: the compressor takes no more.
MOST_CHUNK_BYTES = 2**31
# Rows of one Parquet part, which is read whole.
MOST_PART_ROWS = 2**24
_ITEM_BYTES = {"float32": 4, "float64": 8, "int32": 4, "int64": 8}
# Members of `inputs` that are read before they are compared.
_INPUTS: dict[str, type] = {
    **dict.fromkeys(("selection", "scoring", "model", "attack", "input_gaps"), dict),
    **dict.fromkeys(("taps", "class_names", "labels"), list),
}
_COLUMN_TYPES = ("string", "bool", "int32", "int64", "float", "list<int32>")


def require_members(kind: str, manifest: Mapping[str, Any], where: str) -> None:
    """Check the members of a manifest of this kind.

    Raises:
        DamagedError: one is missing, of another type, or out of bounds; begins with `where`.
    """
    if problem := members_problem(kind, manifest):
        raise DamagedError(f"{where} is damaged: {problem}")


def members_problem(kind: str, manifest: Mapping[str, Any]) -> str | None:
    """Say what a manifest of this kind lacks or exceeds; None where nothing."""
    checks = {"listings": _parts, "indexes": _parts, "banks": _bank}
    return _head(kind, manifest) or checks.get(kind, _blocks)(manifest)


def _head(kind: str, manifest: Mapping[str, Any]) -> str | None:
    """What is wrong with the rows, or with a member of the inputs that any kind may have."""
    rows, inputs = manifest.get("rows"), manifest["inputs"]
    if not _size(rows, MOST_PLANNED_ROWS):
        return f"its rows are {rows}, not 1 to {MOST_PLANNED_ROWS}"
    types = _INPUTS | ({"source": dict} if kind == "features" else {})
    wrong = [name for name, is_a in types.items() if not isinstance(inputs.get(name, is_a()), is_a)]
    if wrong:
        return f"its inputs' {wrong[0]} is not readable"
    known = isinstance(manifest.get("recorded", {}), dict)
    return None if known else "what it records is not readable"


def _parts(manifest: Mapping[str, Any]) -> str | None:
    size, parts = manifest.get("part_rows"), manifest.get("parts")
    if not _size(size, MOST_PART_ROWS) or not _strings(parts):
        return "its parts are not readable"
    if len(parts) != -(-manifest["rows"] // size):
        return f"it lists {len(parts)} parts for {manifest['rows']} rows in parts of {size}"
    texts = _strings(manifest["inputs"].get("class_names")) and _strings(
        [manifest.get("source_spec")]
    )
    return None if texts else "its class_names or source_spec are not readable"


def _blocks(manifest: Mapping[str, Any]) -> str | None:
    rows, size = manifest["rows"], manifest.get("block_rows")
    try:
        BlockPlan(rows, size if type(size) is int else 0)
    except ValueError as error:
        return str(error)
    if min(rows, size) > MOST_PART_ROWS:
        return f"its blocks have {min(rows, size)} rows, more than {MOST_PART_ROWS}"
    columns = manifest.get("columns")
    if not isinstance(columns, list) or not all(map(_is_column, columns)):
        return "its columns are not readable"
    return _arrays(manifest, rows, min(rows, size))


def _is_column(column: object) -> bool:
    return (
        isinstance(column, dict)
        and isinstance(column.get("name"), str)
        and column.get("type") in _COLUMN_TYPES
        and isinstance(column.get("nullable"), bool)
    )


def _bank(manifest: Mapping[str, Any]) -> str | None:
    counts, classes = manifest.get("counts"), manifest["inputs"].get("class_names")
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        return "its counts are not numbers of samples"
    if not _strings(classes) or len(classes) != len(counts) or sum(counts) != manifest["rows"]:
        return "its counts are not those of its classes and rows"
    arrays, checksums = manifest.get("arrays"), manifest.get("checksums")
    taps = manifest["inputs"].get("taps")
    if not _strings(checksums) or not isinstance(taps, list) or not all(map(_is_tap, taps)):
        return "its taps or checksums are not readable"
    if not isinstance(arrays, list) or not len(arrays) == len(checksums) == len(taps):
        return "it has not one array and one checksum per tap"
    return _arrays(manifest, 2, 1)


def _is_tap(tap: object) -> bool:
    return (
        isinstance(tap, list)
        and len(tap) == 2
        and isinstance(tap[0], str)
        and _size(tap[1], MOST_PLANNED_ROWS)
    )


def _arrays(manifest: Mapping[str, Any], rows: int, block_rows: int) -> str | None:
    """Check that each array has these rows, and that a block of it fits a chunk."""
    arrays = manifest.get("arrays")
    if not isinstance(arrays, list):
        return "its arrays are not readable"
    return next((problem for each in arrays if (problem := _array(each, rows, block_rows))), None)


def _array(array: object, rows: int, block_rows: int) -> str | None:
    shape = array.get("shape") if isinstance(array, dict) else None
    if not isinstance(array, dict) or not isinstance(shape, list) or not shape:
        return "its arrays are not readable"
    if not all(_size(length, MOST_PLANNED_ROWS) for length in shape) or shape[0] != rows:
        return f"the shape of its array {array.get('path')} cannot be: {str(shape)[:80]}"
    size = block_rows * _ITEM_BYTES.get(str(array.get("dtype")), 8)
    for length in shape[1:]:
        size *= length
    if size > MOST_CHUNK_BYTES:
        return f"a block of its array {array.get('path')} would take {size} bytes"
    return None


def _size(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
