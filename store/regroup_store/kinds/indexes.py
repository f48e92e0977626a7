"""Sample indexes: the Parquet table with one row per image of a split."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from regroup_store.format.row_tables import RowTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

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
# What an index declares that holds images of more than 8 bits: their pixels are other ones than
# those of releases that clipped them.
_DEPTH = "depth"
_SCALED = {_DEPTH: "more than 8 bits per channel are scaled to 8"}


class SampleIndex(RowTable):
    """A stored index; its source_spec and locators are recorded, not hashed."""

    kind: ClassVar[str] = KIND
    columns: ClassVar[pa.Schema] = COLUMNS
    hashed: ClassVar[tuple[str, ...]] = ("sample_id", "label", "digest")

    @property
    def deep(self) -> bool:
        """Whether it declares images of more than 8 bits per channel, which are then scaled."""
        return _DEPTH in self._inputs

    @property
    def left_out(self) -> dict[str, object]:
        """What of the dataset is no sample: counts and first names, by reason."""
        recorded: Any = self.manifest["recorded"]
        return dict(recorded.get("left_out", {}))

    @property
    def _inputs(self) -> dict[str, object]:
        inputs: Any = self.manifest["inputs"]
        return dict(inputs)

    @classmethod
    def write(
        cls,
        store: Store,
        name: str,
        rows: Iterable[pa.Table],
        class_names: Sequence[str],
        source_spec: str,
        recorded: Mapping[str, object] | None = None,
        deep: Callable[[], bool] | None = None,
    ) -> SampleIndex:
        """Write the rows and open their index.

        An index with the same content is left unmodified, except that it gets the new `source_spec`
        and locators where these differ: neither is part of the fingerprint.

        Args:
            store: where to write.
            name: of the index.
            rows: tables of COLUMNS, read one after the other.
            class_names: of labels 0, 1, ...
            source_spec: where the images are.
            recorded: more to record.
            deep: asked once all rows are read: whether there are images of more than 8 bits per
                channel; hashed where there are.

        Raises:
            StoreUsageError: no rows, a repeated sample_id, or a label without a class name.
        """
        inputs = {"class_names": list(class_names)}
        with cls._drafted(name, rows, inputs, source_spec) as draft:
            if deep is not None and deep():
                draft = replace(draft, inputs={**draft.inputs, **_SCALED})
            return draft.write(store, recorded or {})

    def derive(
        self, store: Store, name: str, rows: Sequence[int], selection: Mapping[str, object]
    ) -> SampleIndex:
        """Write the index of some rows of this one, in the given order.

        Args:
            store: where to write.
            name: of the new index.
            rows: positions in this index.
            selection: how they were chosen, as JSON; hashed, with this index's fingerprint.
        """
        inputs: dict[str, object] = {
            "class_names": list(self.class_names),
            "parent": self.fingerprint,
            "selection": dict(selection),
            **({_DEPTH: self._inputs[_DEPTH]} if self.deep else {}),
        }
        with self._drafted(name, self.take(rows), inputs, self.source_spec) as draft:
            return draft.write(store, {})
