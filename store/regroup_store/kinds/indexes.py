"""Sample indexes: the Parquet table with a row for each image of a split."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from regroup_store.format.row_tables import RowTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from regroup_store.format.store import Store

KIND = "indexes"
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


class SampleIndex(RowTable):
    """An index that is whole; its source_spec and locators are recorded, not hashed."""

    kind: ClassVar[str] = KIND
    columns: ClassVar[pa.Schema] = COLUMNS
    hashed: ClassVar[tuple[str, ...]] = ("sample_id", "label", "digest")

    @classmethod
    def write(
        cls,
        store: Store,
        name: str,
        rows: Iterable[pa.Table],
        class_names: Sequence[str],
        source_spec: str,
        recorded: Mapping[str, object] | None = None,
    ) -> SampleIndex:
        """Write the rows (tables of COLUMNS, read one after the other) and return their index.

        One with the same content is returned as it is. Where it is found at another place
        (`source_spec` or locators), the index is told the new one: neither is part of the
        fingerprint. Raises StoreUsageError for no rows, a repeated sample_id, or a label without
        a class name.
        """
        inputs = {"class_names": list(class_names)}
        with cls._drafted(name, rows, inputs, source_spec) as draft:
            return draft.write(store, recorded or {})

    def derive(
        self, store: Store, name: str, rows: Sequence[int], selection: Mapping[str, object]
    ) -> SampleIndex:
        """Write the index of some rows of this one, in the given order.

        `selection` says how they were chosen, as JSON; it and this index's fingerprint are hashed.
        """
        inputs: dict[str, object] = {
            "class_names": list(self.class_names),
            "parent": self.fingerprint,
            "selection": dict(selection),
        }
        with self._drafted(name, self.take(rows), inputs, self.source_spec) as draft:
            return draft.write(store, {})
