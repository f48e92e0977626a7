"""Parquet parts: the columns of an element's rows, in files that are verified before parsing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regroup_store.errors import DamagedError
from regroup_store.format.fingerprint import checksum_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from regroup_store.backends.base import Backend

# Every samples/ part starts with these: a sample that cannot be read keeps its row.
STATUS_FIELDS = (
    pa.field("sample_id", pa.string(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("error", pa.string()),
    pa.field("label", pa.int32(), nullable=False),
)
STATUSES = ("ok", "failed")


def part_name(part: int) -> str:
    """File name of part number `part`."""
    return f"part-{part:05d}.parquet"


def encode_table(table: pa.Table) -> bytes:
    """Encode `table` as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def read_part(
    backend: Backend,
    key: str,
    checksum: str,
    columns: Sequence[str] | None = None,
    rows: int | None = None,
) -> pa.Table:
    """Read a part, or some of its columns, after verifying the checksum of its bytes.

    Args:
        backend: of the store.
        key: of the part.
        checksum: of its bytes.
        columns: to read (default: all).
        rows: how many it must have, or None where nothing says.

    Raises:
        DamagedError: the part is missing, does not match `checksum`, or is not such a table.
    """
    where = f"{key} of the store {backend.uri}"
    try:
        data = backend.read(key)
    except FileNotFoundError:
        raise DamagedError(f"{where} is missing: repair or rewrite it") from None
    if checksum_bytes(data) != checksum:
        raise DamagedError(f"{where} does not match its checksum: repair or rewrite it")
    try:
        return _parsed(data, rows, columns)
    except (ValueError, KeyError, OSError, pa.ArrowException) as error:
        raise DamagedError(f"{where} is damaged: {error}") from error


def _parsed(data: bytes, rows: int | None, columns: Sequence[str] | None) -> pa.Table:
    """Parse a part; raises ValueError where it states other rows, before any is decoded."""
    file = pq.ParquetFile(pa.BufferReader(data))
    if rows is not None and file.metadata.num_rows != rows:
        raise ValueError(f"it has {file.metadata.num_rows} rows where {rows} are planned")
    table = file.read(None if columns is None else [*columns])
    return table if columns is None else table.select([*columns])


def columns_to_json(schema: pa.Schema) -> list[dict[str, object]]:
    """Describe columns as a manifest does: name, Arrow type and nullable, in order."""
    return [{"name": f.name, "type": _type_name(f.type), "nullable": f.nullable} for f in schema]


def _type_name(kind: pa.DataType) -> str:
    """A name that does not change with pyarrow's release: "list<int32>", "float"."""
    return f"list<{kind.value_type}>" if pa.types.is_list(kind) else str(kind)


def require_columns(table: pa.Table, columns: object, rows: int) -> None:
    """Check that `table` has exactly the manifest's `columns` and `rows` rows.

    Raises:
        ValueError: it has others, or nulls where none are allowed.
    """
    if columns_to_json(table.schema) != columns:
        raise ValueError(f"the columns are {table.schema}, but the manifest says {columns}")
    if table.num_rows != rows:
        raise ValueError(f"the table has {table.num_rows} rows, but the block has {rows}")
    nulls = [f.name for f in table.schema if not f.nullable and table[f.name].null_count]
    if nulls:
        raise ValueError(f"the columns {nulls} hold nulls but are not nullable")


def failed_rows(table: pa.Table) -> NDArray[np.bool_]:
    """Mask of the failed rows, (rows,) bool.

    Raises:
        ValueError: a status is neither "ok" nor "failed".
    """
    status = np.asarray(table["status"].to_pylist(), dtype=object)
    if unknown := set(status) - set(STATUSES):
        raise ValueError(f"unknown status {sorted(map(str, unknown))}: use one of {STATUSES}")
    return np.asarray(status == "failed", dtype=np.bool_)
