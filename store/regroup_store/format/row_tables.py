"""Tables with one row per image of a split, in Parquet parts: what listings and indexes share.

They are written as a stream, so that a writer's memory grows by eight bytes per row only. The
manifest is written last: a table that has one is complete.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from regroup_store.errors import DamagedError, StoreUsageError
from regroup_store.format.environment import environment_record
from regroup_store.format.fingerprint import canonical_json, checksum_bytes, seal
from regroup_store.format.manifests import (
    SCHEMA_VERSION,
    Location,
    element_fingerprint,
    find_location,
    locate,
    new_location,
    read_manifest,
)
from regroup_store.format.parquet_parts import (
    columns_to_json,
    encode_table,
    part_name,
    read_part,
    require_columns,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from regroup_store.backends.base import Backend
    from regroup_store.format.store import Store

# A reader holds at most two parts, which is little memory whatever the number of rows.
PART_ROWS = 8192


class RowTable:
    """A stored table; a subclass names its kind and its columns."""

    kind: ClassVar[str]
    columns: ClassVar[pa.Schema]
    # The columns that the fingerprint covers.
    hashed: ClassVar[tuple[str, ...]]

    def __init__(self, backend: Backend, location: Location, manifest: dict[str, object]) -> None:
        self.manifest = manifest
        self._backend = backend
        self._location = location
        self._part: tuple[int, pa.Table] | None = None

    @classmethod
    def open(cls, store: Store, ref: str) -> Self:
        """Open the table that `ref` names; `manifests.locate` documents the errors."""
        location = locate(store.backend, cls.kind, ref)
        return cls(store.backend, location, read_manifest(store.backend, location))

    @property
    def ref(self) -> str:
        """`<name>-<first 16 characters of the fingerprint>`."""
        return self._location.ref

    @property
    def name(self) -> str:
        """The name under which it was written."""
        return self._location.name

    @property
    def fingerprint(self) -> str:
        """The fingerprint, 64 hex characters."""
        return str(self.manifest["fingerprint"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of classes 0, 1, ..."""
        return tuple(self.manifest["inputs"]["class_names"])  # type: ignore[index]

    @property
    def source_spec(self) -> str:
        """Where the images are ("parquet:GLOB", ...)."""
        return str(self.manifest["source_spec"])

    @property
    def rows_count(self) -> int:
        """The number of rows."""
        return int(str(self.manifest["rows"]))

    def rows(self, span: slice | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Read consecutive rows (all by default), verified against the manifest's checksums.

        Raises:
            DamagedError: a part is missing or changed.
        """
        start, stop, step = (span or slice(None)).indices(self.rows_count)
        if step != 1:
            raise ValueError("rows are read in order: no step")
        size = self._part_rows
        first, last = start // size, max(start, stop - 1) // size
        parts = [self._read_part(part) for part in range(first, last + 1)]
        table = pa.concat_tables(parts).slice(start - first * size, max(0, stop - start))
        return table if columns is None else table.select(list(columns))

    def take(self, rows: Sequence[int]) -> Iterator[pa.Table]:
        """Read the given rows in the given order, some thousands at a time."""
        for start in range(0, len(rows), PART_ROWS):
            yield self._take(np.asarray(rows[start : start + PART_ROWS], np.int64))

    def _take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Read each part once, whatever the order of `rows`, and one part at a time."""
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        found = []
        for part in np.unique(ascending // self._part_rows):
            inside = ascending[ascending // self._part_rows == part] - part * self._part_rows
            found.append(self._read_part(int(part)).take(pa.array(inside)))
        return pa.concat_tables(found).take(pa.array(np.argsort(order, kind="stable")))

    @property
    def _part_rows(self) -> int:
        return int(str(self.manifest["part_rows"]))

    def _read_part(self, part: int) -> pa.Table:
        """Read a part, and keep it in memory until another is read: blocks are read in order."""
        if self._part is None or self._part[0] != part:
            parts = self.manifest["parts"]
            if not isinstance(parts, list) or part >= len(parts):
                raise DamagedError(f"{self._location.folder}/manifest.json lacks part {part}")
            key = self._location.key(part_name(part))
            rows = min(self._part_rows, self.rows_count - part * self._part_rows)
            self._part = (part, read_part(self._backend, key, str(parts[part]), None, rows))
        return self._part[1]

    @classmethod
    @contextmanager
    def _drafted(
        cls, name: str, rows: Iterable[pa.Table], inputs: Mapping[str, object], source_spec: str
    ) -> Iterator[Draft[Self]]:
        """Read all rows, and only then yield the draft that writes them.

        Args:
            name: of the new table.
            rows: its rows, as tables of `columns`.
            inputs: all that determines it but `samples`; holds `class_names`.
            source_spec: where the images are.
        """
        classes: Any = inputs["class_names"]
        with tempfile.TemporaryDirectory(prefix="regroup-rows-") as folder:
            what = f"the {cls.kind} {name!r}"
            spool = _Spool(Path(folder), what, cls.columns, cls.hashed, len(classes))
            spool.extend(rows)
            yield Draft(cls, name, {**inputs, "samples": spool.digest()}, source_spec, spool)


_T = TypeVar("_T", bound=RowTable)


@dataclass(frozen=True)
class Draft(Generic[_T]):
    """A complete table that is not in a store yet."""

    table: type[_T]
    name: str
    inputs: Mapping[str, object]
    source_spec: str
    spool: _Spool

    def write(self, store: Store, recorded: Mapping[str, object]) -> _T:
        """Write the table unless the same one exists, and open it."""
        kind, backend = self.table.kind, store.backend
        fingerprint = element_fingerprint(kind, self.inputs)
        found = find_location(backend, kind, fingerprint)
        location = found or new_location(kind, self.name, fingerprint)
        manifest = self._manifest(location, fingerprint, recorded)
        if not (found and _same_record(read_manifest(backend, found), manifest, recorded)):
            for number, part in enumerate(self.spool.parts()):
                backend.replace(location.key(part_name(number)), part)
            backend.replace(location.key("manifest.json"), seal(manifest))
        return self.table(backend, location, read_manifest(backend, location))

    def _manifest(
        self, location: Location, fingerprint: str, recorded: Mapping[str, object]
    ) -> dict[str, object]:
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": location.kind,
            "name": location.name,
            "fingerprint": fingerprint,
            "inputs": self.inputs,
            "rows": self.spool.rows,
            "part_rows": PART_ROWS,
            "parts": self.spool.checksums,
            "columns": columns_to_json(self.table.columns),
            "source_spec": self.source_spec,
            "recorded": environment_record(recorded),
        }


def _same_record(
    old: Mapping[str, object], new: Mapping[str, object], recorded: Mapping[str, object]
) -> bool:
    """Whether a table lies where it did, and has the same to record beside its environment."""
    before: Any = old["recorded"]
    same = all(old[key] == new[key] for key in ("source_spec", "parts"))
    return same and all((before.get(key) or None) == (recorded[key] or None) for key in recorded)


@dataclass
class _Spool:
    """Parts on the local disk until their fingerprint, and so their place in the store, is known.

    Attributes:
        folder: where the parts are.
        what: names the table in errors.
        schema: of the rows.
        hashed: the columns that the fingerprint covers.
        classes: number of classes.
        rows: number of rows so far.
        checksums: of the parts.
    """

    folder: Path
    what: str
    schema: pa.Schema
    hashed: tuple[str, ...]
    classes: int
    rows: int = 0
    checksums: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()
        self._id_hashes: list[NDArray[np.uint64]] = []

    def extend(self, tables: Iterable[pa.Table]) -> None:
        """Append all rows.

        Raises:
            StoreUsageError: no rows, a repeated sample_id, or a label without a class name.
        """
        for part in _regrouped(tables, PART_ROWS):
            require_columns(part, columns_to_json(self.schema), part.num_rows)
            self._require_labels(part["label"].to_numpy())
            self._hash(part)
            data = encode_table(part)
            (self.folder / part_name(len(self.checksums))).write_bytes(data)
            self.checksums.append(checksum_bytes(data))
            self.rows += part.num_rows
        if self.rows == 0:
            raise StoreUsageError(f"{self.what} would have no rows: the source has no images")
        self._require_unique()

    def digest(self) -> str:
        """sha256 over one canonical JSON line of the hashed columns per row."""
        return self._digest.hexdigest()

    def parts(self) -> Iterator[bytes]:
        """Read the parts as Parquet files, in order."""
        for number in range(len(self.checksums)):
            yield (self.folder / part_name(number)).read_bytes()

    def _hash(self, part: pa.Table) -> None:
        columns = [part[name].to_pylist() for name in self.hashed]
        for values in zip(*columns, strict=True):
            self._digest.update(canonical_json(values) + b"\n")
        ids = map(_hash, part["sample_id"].to_pylist())
        self._id_hashes.append(np.fromiter(ids, np.uint64, part.num_rows))

    def _require_labels(self, labels: NDArray[np.int32]) -> None:
        if labels.min() < 0 or labels.max() >= self.classes:
            bad = labels.min() if labels.min() < 0 else labels.max()
            raise StoreUsageError(
                f"{self.what} would hold label {bad}, but there are {self.classes} classes"
            )

    def _require_unique(self) -> None:
        """Compare hashes, and the ids themselves only where hashes are equal."""
        hashes = np.concatenate(self._id_hashes)
        self._id_hashes.clear()
        hashes.sort()
        suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
        seen: set[str] = set()
        for sample_id in self._ids() if suspects else ():
            if _hash(sample_id) in suspects:
                if sample_id in seen:
                    raise StoreUsageError(f"{self.what} would hold sample_id {sample_id!r} twice")
                seen.add(sample_id)

    def _ids(self) -> Iterator[str]:
        for number in range(len(self.checksums)):
            part = pq.read_table(self.folder / part_name(number), columns=["sample_id"])
            yield from part["sample_id"].to_pylist()


def _hash(sample_id: str) -> int:
    return xxhash.xxh3_64_intdigest(sample_id.encode())


def _regrouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Regroup a stream of tables into tables of `rows` rows, the last one shorter."""
    kept: list[pa.Table] = []
    count = 0
    for table in tables:
        kept.append(table)
        count += table.num_rows
        while count >= rows:
            joined = pa.concat_tables(kept)
            yield joined.slice(0, rows).combine_chunks()
            kept, count = [joined.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(kept).combine_chunks()
