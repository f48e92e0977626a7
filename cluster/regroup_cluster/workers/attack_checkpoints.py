"""Checkpoints of a block under attack: a later attempt resumes from them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from regroup_cluster.workers.attack_buffer import OUTCOME

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from regroup_cluster.workers.attack_buffer import AttackBlockBuffer
    from regroup_store.format.checkpoints import BlockCheckpoints

# One row per sample: its position in the block, its image (C order, little-endian float32; null
# where the attack failed), why it failed, its seconds, and its columns of the element.
_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("image", pa.binary()),
        pa.field("error", pa.string()),
        pa.field("seconds", pa.float64(), nullable=False),
        *(pa.field(name, pa.from_numpy_dtype(dtype)) for name, (dtype, _) in OUTCOME.items()),
    ]
)


class AttackCheckpoints:
    """The checkpoints of one block of adversarials."""

    def __init__(self, stored: BlockCheckpoints, block: AttackBlockBuffer, every_s: float) -> None:
        """Bind the stored checkpoints of a block to its buffer.

        Args:
            stored: checkpoints in the store.
            block: the buffer.
            every_s: seconds of work between checkpoints; a shorter block has none.
        """
        self._stored, self._block, self._every_s = stored, block, every_s
        self._saved = np.zeros_like(block.attacked)
        self._last = time.monotonic()

    def restore(self) -> int:
        """Fill the buffer with the samples of earlier attempts and return their number."""
        for table in self._stored.read(self._fits):
            self._take(table)
        self._saved = self._block.attacked.copy()
        self._last = time.monotonic()
        return int(self._saved.sum())

    def save(self) -> None:
        """Write a checkpoint of the samples since the last one, if that took long enough."""
        rows = np.flatnonzero(self._block.attacked & ~self._saved)
        if not len(rows) or time.monotonic() - self._last < self._every_s:
            return
        self._stored.add(int(rows[0]), self._table(rows))
        self._saved[rows] = True
        self._last = time.monotonic()

    def clear(self) -> None:
        """Remove all checkpoints: the block is committed."""
        self._stored.clear()

    def _table(self, rows: NDArray[np.int64]) -> pa.Table:
        block, positions = self._block, rows.tolist()
        failed = block.errors
        images = [None if row in failed else block.images[row].tobytes() for row in positions]
        columns = {
            "row": rows,
            "sample_id": [block.rows.sample_ids[row] for row in positions],
            "image": images,
            "error": [failed.get(row) for row in positions],
            "seconds": block.seconds[rows],
            **{name: values[rows] for name, values in block.outcome.items()},
        }
        return pa.table(columns, schema=_SCHEMA)

    def _fits(self, table: pa.Table) -> bool:
        """Return whether a checkpoint holds rows of this block."""
        if table.schema != _SCHEMA:
            return False
        ids, size = self._block.rows.sample_ids, self._block.images[0].nbytes
        columns = table.select(["row", "sample_id", "image", "error"]).to_pydict()
        rows, names, images, errors = (columns[name] for name in columns)
        return all(
            0 <= row < len(ids) and ids[row] == name and (error or len(image or b"") == size)
            for row, name, image, error in zip(rows, names, images, errors, strict=True)
        )

    def _take(self, table: pa.Table) -> None:
        block, rows = self._block, table["row"].to_numpy()
        shape = block.images.shape[1:]
        for row, image in zip(rows.tolist(), table["image"].to_pylist(), strict=True):
            if image is not None:
                block.images[row] = np.frombuffer(image, "<f4").reshape(shape)
        errors = zip(rows.tolist(), table["error"].to_pylist(), strict=True)
        block.fail({row: error for row, error in errors if error is not None})
        block.seconds[rows] = table["seconds"].to_numpy()
        block.attacked[rows] = True
        for name, values in block.outcome.items():
            values[rows] = table[name].to_numpy()
