"""Sample indexes: the Parquet table with a row for each image of a split."""

import hashlib
from collections.abc import Mapping, Sequence

import pyarrow as pa

from store.backend import Backend
from store.errors import DamagedError, StoreUsageError
from store.fingerprint import canonical_json, checksum_bytes, seal
from store.manifests import (
    SCHEMA_VERSION,
    Location,
    element_fingerprint,
    find,
    locate,
    locate_new,
    read_manifest,
)
from store.recorded import recorded_now
from store.stores import Store
from store.tables import columns_to_json, encode_table, part_name, read_part, require_columns

KIND = "indexes"
# A reader holds two parts at the most: small beside a worker, whatever the number of rows.
PART_ROWS = 8192
# locator: where in the source; digest: xxh3_128 of the encoded image, so that a changed file
# is noticed, or "" for an image that could not be read when the index was made.
COLUMNS = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("locator", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
    ]
)


class SampleIndex:
    """An index that is whole: its manifest is written last."""

    def __init__(self, backend: Backend, location: Location, manifest: dict[str, object]) -> None:
        self.manifest = manifest
        self._backend = backend
        self._location = location
        self._part: tuple[int, pa.Table] | None = None

    @classmethod
    def write(
        cls,
        store: Store,
        name: str,
        rows: pa.Table,
        class_names: Sequence[str],
        source_spec: str,
        recorded: Mapping[str, object] | None = None,
    ) -> "SampleIndex":
        """Write `rows` (COLUMNS) and return their index; one with the same content is returned.

        Where the same content is found at another place (`source_spec` or locators), the index is
        told the new place: neither is part of the fingerprint. Raises StoreUsageError for no
        rows, a repeated sample_id, or a label without a class name.
        """
        inputs: dict[str, object] = {
            "samples": samples_digest(rows),
            "class_names": list(class_names),
        }
        return _write(store, name, rows, inputs, class_names, source_spec, recorded or {})

    @classmethod
    def open(cls, store: Store, ref: str) -> "SampleIndex":
        """Open the index that `ref` names; see `store.manifests.locate` for its errors."""
        location = locate(store.backend, KIND, ref)
        return cls(store.backend, location, read_manifest(store.backend, location))

    def derive(
        self, store: Store, name: str, rows: Sequence[int], selection: Mapping[str, object]
    ) -> "SampleIndex":
        """Write the index of some rows of this one, in the given order.

        `selection` says how they were chosen, as JSON; it and this index's fingerprint are hashed.
        """
        chosen = self.rows().take(pa.array(rows, type=pa.int64()))
        inputs: dict[str, object] = {
            "samples": samples_digest(chosen),
            "class_names": list(self.class_names),
            "parent": self.fingerprint,
            "selection": dict(selection),
        }
        return _write(store, name, chosen, inputs, self.class_names, self.source_spec, {})

    @property
    def ref(self) -> str:
        """`<name>-<first 16 of the fingerprint>`."""
        return self._location.ref

    @property
    def name(self) -> str:
        """The name it was written under."""
        return self._location.name

    @property
    def fingerprint(self) -> str:
        """The whole fingerprint, 64 hex characters."""
        return str(self.manifest["fingerprint"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of classes 0, 1, ..."""
        return tuple(self.manifest["inputs"]["class_names"])  # type: ignore[index]

    @property
    def source_spec(self) -> str:
        """Where the images are ("parquet:GLOB", ...): recorded, not hashed."""
        return str(self.manifest["source_spec"])

    @property
    def rows_count(self) -> int:
        """The number of rows."""
        return int(str(self.manifest["rows"]))

    def rows(self, span: slice | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return consecutive rows (all by default), checked against the manifest's checksums.

        Raises DamagedError for a part that is missing or changed.
        """
        start, stop, step = (span or slice(None)).indices(self.rows_count)
        if step != 1:
            raise ValueError("rows of an index are read in order: no step")
        size = int(str(self.manifest["part_rows"]))
        first, last = start // size, max(start, stop - 1) // size
        parts = [self._read_part(part) for part in range(first, last + 1)]
        table = pa.concat_tables(parts).slice(start - first * size, max(0, stop - start))
        return table if columns is None else table.select(list(columns))

    def _read_part(self, part: int) -> pa.Table:
        """Return one part; the last one read is kept, since blocks are read in order."""
        if self._part is None or self._part[0] != part:
            parts = self.manifest["parts"]
            if not isinstance(parts, list) or part >= len(parts):
                raise DamagedError(f"{self._location.folder}/manifest.json lacks part {part}")
            key = self._location.key(part_name(part))
            self._part = (part, read_part(self._backend, key, str(parts[part])))
        return self._part[1]


def samples_digest(rows: pa.Table) -> str:
    """Return the sha256 over one canonical JSON line [sample_id, label, digest] a row."""
    digest = hashlib.sha256()
    for batch in rows.select(["sample_id", "label", "digest"]).to_batches(max_chunksize=PART_ROWS):
        for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            digest.update(canonical_json(values) + b"\n")
    return digest.hexdigest()


def _write(
    store: Store,
    name: str,
    rows: pa.Table,
    inputs: dict[str, object],
    class_names: Sequence[str],
    source_spec: str,
    recorded: Mapping[str, object],
) -> SampleIndex:
    _require_usable(name, rows, class_names)
    full = element_fingerprint(KIND, inputs)
    found = find(store.backend, KIND, full)
    location = found or locate_new(KIND, name, full)
    parts = _encoded_parts(rows)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "name": location.name,
        "fingerprint": full,
        "inputs": inputs,
        "rows": rows.num_rows,
        "part_rows": PART_ROWS,
        "parts": [checksum_bytes(part) for part in parts],
        "columns": columns_to_json(COLUMNS),
        "source_spec": source_spec,
        "recorded": recorded_now(recorded),
    }
    if not (found and _same_place(read_manifest(store.backend, found), manifest)):
        for number, part in enumerate(parts):
            store.backend.replace(location.key(part_name(number)), part)
        store.backend.replace(location.key("manifest.json"), seal(manifest))
    return SampleIndex(store.backend, location, read_manifest(store.backend, location))


def _same_place(old: Mapping[str, object], new: Mapping[str, object]) -> bool:
    return all(old[key] == new[key] for key in ("source_spec", "parts"))


def _encoded_parts(rows: pa.Table) -> list[bytes]:
    starts = range(0, rows.num_rows, PART_ROWS)
    return [encode_table(rows.slice(start, PART_ROWS)) for start in starts]


def _require_usable(name: str, rows: pa.Table, class_names: Sequence[str]) -> None:
    require_columns(rows, columns_to_json(COLUMNS), rows.num_rows)
    if rows.num_rows == 0:
        raise StoreUsageError(f"the index {name!r} would have no rows: the source has no images")
    ids = rows["sample_id"]
    if len(ids.unique()) != rows.num_rows:
        counts = ids.value_counts().to_pylist()
        repeated = next(entry["values"] for entry in counts if entry["counts"] > 1)
        raise StoreUsageError(f"the index {name!r} would hold sample_id {repeated!r} twice")
    labels = rows["label"].to_numpy()
    if labels.min() < 0 or labels.max() >= len(class_names):
        bad = labels.min() if labels.min() < 0 else labels.max()
        raise StoreUsageError(
            f"the index {name!r} would hold label {bad}, but there are {len(class_names)} classes"
        )
