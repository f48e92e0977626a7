"""Known gaps: blocks that an element was finalised without, as its readers see their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from regroup_store.errors import DamagedError, GapError
from regroup_store.format.fingerprint import short_fingerprint
from regroup_store.format.lineage import parents
from regroup_store.format.manifests import find_location, read_manifest
from regroup_store.format.row_tables import RowTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regroup_store.backends.base import Backend

# What a column without a value holds in a failed row, by its type in the manifest: class numbers
# are int32, counts int64.
_FILLS: dict[str, tuple[pa.DataType, object]] = {
    "string": (pa.string(), None),
    "bool": (pa.bool_(), None),
    "int32": (pa.int32(), -1),
    "int64": (pa.int64(), 0),
    "float": (pa.float32(), float("nan")),
    "list<int32>": (pa.list_(pa.int32()), None),
}


def missing_blocks(summary: Mapping[str, object] | None, where: str) -> frozenset[int]:
    """Blocks that a summary lists as missing from the finalised element.

    Raises:
        DamagedError: the summary's list is not one of block numbers.
    """
    listed = (summary or {}).get("missing_blocks", [])
    if not isinstance(listed, list) or any(type(block) is not int for block in listed):
        raise DamagedError(f"{where} is damaged: its missing_blocks are not a list of numbers")
    return frozenset(listed)


def accepted_gaps(inputs: Mapping[str, Any]) -> list[int]:
    """Blocks of its source that an element was made without, from the element's inputs."""
    blocks: list[int] = inputs.get("input_gaps", {}).get("blocks", [])
    return blocks


def failed_table(samples: pa.Table, columns: list[Mapping[str, Any]], error: str) -> pa.Table:
    """Build failed rows of an element for `samples` (sample_id, label).

    Columns without a known value hold null, -1, 0 or NaN, by their type.

    Args:
        samples: the rows of the index.
        columns: of the element, as in its manifest.
        error: why the rows failed.
    """
    rows = samples.num_rows
    known = {
        "sample_id": samples["sample_id"],
        "label": samples["label"],
        "status": pa.array(["failed"] * rows),
        "error": pa.array([error] * rows),
    }
    arrays = [known.get(c["name"], _filled(c["type"], rows)) for c in columns]
    fields = [pa.field(c["name"], _FILLS[c["type"]][0], nullable=c["nullable"]) for c in columns]
    return pa.table(arrays, schema=pa.schema(fields))


def _filled(kind: str, rows: int) -> pa.Array:
    arrow, fill = _FILLS[kind]
    return pa.array([fill] * rows, type=arrow)


def _mapped(samples: pa.Table, labels: list[int] | None) -> pa.Table:
    """Replace the index's labels by the model's classes, as in the element's other rows."""
    if labels is None:
        return samples
    found = pa.array(labels, pa.int32()).take(samples["label"].combine_chunks())
    return pa.table({"sample_id": samples["sample_id"], "label": found})


def rows_of_index(
    backend: Backend, kind: str, inputs: Mapping[str, Any], span: slice, what: str
) -> pa.Table:
    """Read sample_id and label of rows `span` from the index that an element comes from.

    Raises:
        GapError: the index is not in the store; the message begins with `what`.
    """
    parent, fingerprint = parents(kind, inputs)[0]
    location = find_location(backend, parent, fingerprint)
    if location is None:
        raise GapError(
            f"{what} is missing, and so are the {parent} {short_fingerprint(fingerprint)} that "
            "would say which samples it holds: run the command that writes it again in the store "
            f"{backend.uri}"
        )
    if parent == "indexes":
        index = RowTable(backend, location, read_manifest(backend, location))
        return _mapped(index.rows(span, ["sample_id", "label"]), inputs.get("labels"))
    inputs = read_manifest(backend, location)["inputs"]  # type: ignore[assignment]
    return rows_of_index(backend, parent, inputs, span, what)
