"""Listings: what a dataset held when it was listed, before any image was read.

Indexing starts from a listing: the images' digests are computed over its rows, block by block, and
kept for as long as the dataset lists the same.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from regroup_store.format.element_spec import ElementSpec
from regroup_store.format.parquet_parts import STATUS_FIELDS
from regroup_store.format.row_tables import Draft, RowTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regroup_store.sources import Source

KIND = "listings"
DIGESTS = "digests"
# Images digested by one task.
BLOCK_ROWS = 1024
# stamp: what changes when the image's file does (size and time of change, an object's ETag).
COLUMNS = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("locator", pa.string(), nullable=False),
        pa.field("stamp", pa.string(), nullable=False),
    ]
)
# digest: xxh3_128 of the encoded image, "" where it could not be read (error says why).
DIGEST_COLUMNS = pa.schema([*STATUS_FIELDS, pa.field("digest", pa.string(), nullable=False)])


class Listing(RowTable):
    """The rows of a dataset, as its source lists them."""

    kind: ClassVar[str] = KIND
    columns: ClassVar[pa.Schema] = COLUMNS
    hashed: ClassVar[tuple[str, ...]] = ("sample_id", "label", "locator", "stamp")

    @classmethod
    @contextmanager
    def drafted(cls, name: str, source: Source) -> Iterator[Draft[Listing]]:
        """List `source`, and yield what writes the listing into a store.

        Raises:
            StoreUsageError: the source refuses, there are no images, or a sample_id is repeated. No
                store has been touched then.
        """
        rows = _tables(source)
        inputs = {"class_names": list(source.class_names), "source": source.spec}
        with cls._drafted(name, rows, inputs, source.spec) as draft:
            yield draft

    def digests_spec(self) -> ElementSpec:
        """Describe the element that holds the digests of these images."""
        inputs = {"listing": self.fingerprint, "digest": "xxh3_128 of the encoded image"}
        rows = self.rows_count
        return ElementSpec(DIGESTS, self.name, inputs, rows, BLOCK_ROWS, (), DIGEST_COLUMNS)


def _tables(source: Source) -> Iterator[pa.Table]:
    stream = source.rows()
    while chunk := list(islice(stream, BLOCK_ROWS)):
        columns = {name: [getattr(row, name) for row in chunk] for name in COLUMNS.names}
        yield pa.table(columns, schema=COLUMNS)
