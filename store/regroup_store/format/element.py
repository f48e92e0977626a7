"""Elements written block by block: what digests, features, adversarials and votes share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from regroup_store.errors import DamagedError, StoreUsageError
from regroup_store.format.arrays import (
    chunk_key,
    create_array,
    read_checked,
    require_blank,
    storable_values,
    stored_chunk_rows,
    write_chunk,
)
from regroup_store.format.checkpoints import (
    BlockCheckpoints,
    checkpointed_blocks,
    clear_checkpoints,
)
from regroup_store.format.commits import (
    Commit,
    build_commit,
    write_commit,
)
from regroup_store.format.element_reader import ElementReader
from regroup_store.format.element_spec import ElementSpec, require_same
from regroup_store.format.fingerprint import checksum_array, seal
from regroup_store.format.manifest_checks import members_problem
from regroup_store.format.manifests import (
    BLOCK_KINDS,
    find_location,
    new_location,
    read_manifest,
)
from regroup_store.format.parquet_parts import (
    encode_table,
    failed_rows,
    require_columns,
)
from regroup_store.format.quarantine import (
    Quarantined,
    quarantine_key,
    quarantined_blocks,
    write_quarantine,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from regroup_store.format.store import Store

# Values of a block, by the path of their array.
Arrays = Mapping[str, NDArray[np.generic]]


class BlockElement(ElementReader):
    """An element whose blocks are written and committed one by one."""

    @classmethod
    def create(
        cls, store: Store, spec: ElementSpec, recorded: Mapping[str, object]
    ) -> BlockElement:
        """Create the element, or open the one with its fingerprint, whose block plan wins.

        Raises:
            StoreUsageError: the name is invalid, there are no rows, or blocks beyond all bounds.
            FingerprintMismatchError: the existing element has other rows, arrays or columns.
        """
        if spec.kind not in BLOCK_KINDS:
            raise ValueError(f"{spec.kind!r} is not written in blocks")
        if spec.rows < 1 or spec.block_rows < 1:
            raise StoreUsageError(
                f"{spec.kind} {spec.name!r} would have {spec.rows} rows in blocks of "
                f"{spec.block_rows}: both must be at least 1"
            )
        if problem := members_problem(spec.kind, spec.description()):
            raise StoreUsageError(
                f"{spec.kind} {spec.name!r} cannot be stored: {problem}; choose another "
                "--block-rows"
            )
        backend = store.backend
        location = find_location(backend, spec.kind, spec.fingerprint)
        if location is None:
            location = new_location(spec.kind, spec.name, spec.fingerprint)
            rows = stored_chunk_rows(backend, location, spec.arrays, spec.rows)
            spec = replace(spec, block_rows=rows or spec.block_rows)
            backend.create(location.key("manifest.json"), seal(spec.manifest(recorded)))
        element = cls(backend, location, read_manifest(backend, location))
        require_same(element.manifest, spec, f"{location.folder} of the store {backend.uri}")
        for array in element._specs:
            create_array(backend, location, array, element.plan.rows, element.plan.block_rows)
        return element

    def quarantine(self, block: int, attempts: int, reason: str) -> None:
        """Record why a block failed, until it is committed or fails again."""
        record = Quarantined(block, attempts, reason)
        write_quarantine(self._backend, self._location, record, self.fingerprint)

    def clear_quarantine(self) -> None:
        """Remove the records of blocks that have been committed since."""
        for block in self.committed_among(quarantined_blocks(self._backend, self._location)):
            self._backend.delete(quarantine_key(self._location, block))

    def write_block(
        self,
        block: int,
        arrays: Arrays,
        table: pa.Table | Callable[[Arrays], pa.Table],
        report: Mapping[str, object],
    ) -> bool:
        """Write and commit a block.

        Args:
            block: its number.
            arrays: by path, (rows of the block, *tail), in exactly the manifest's dtype; rows with
                status "failed" are overwritten with NaN (-1 for integers).
            table: one row per sample; or a function that makes it from the arrays as read back from
                the store, whose failed rows must then already hold NaN (-1).
            report: the attempt's own account, as JSON; nothing depends on it.

        Returns:
            True where this attempt committed, False where another had.

        Raises:
            ValueError: the arrays or columns are not the element's.
            StoreError: the store cannot be written.
            DamagedError: a concurrent attempt committed other values.
        """
        make_table = table if callable(table) else None
        size = self.plan.size(block)
        failed = np.zeros(size, bool) if make_table else self._failed(block, table)
        values = storable_values(self._specs, arrays, size, failed)
        with self._backend.lock(self._location.key("lock"), block):
            if block in self.committed_among([block]):
                return False
            self._write_values(block, values)
            if make_table:
                table = make_table(self._read_back(block, values))
                require_blank(self._specs, values, self._failed(block, table))
            part = encode_table(table)
            self._backend.replace(self._part_key(block), part)
            commit = build_commit(block, values, table, part, report, self.fingerprint)
            if write_commit(self._backend, self._location, commit):
                return True
        return self._lost_race(commit)

    def checkpoints(self, block: int) -> BlockCheckpoints:
        """Open the checkpoints of attempts at `block`."""
        return BlockCheckpoints(self._backend, self._location, block)

    def clear_checkpoints(self) -> None:
        """Remove the checkpoints of blocks that have been committed since."""
        blocks = self.committed_among(checkpointed_blocks(self._backend, self._location))
        clear_checkpoints(self._backend, self._location, blocks)

    def finalise(self, summary: Mapping[str, object], *, without: Iterable[int] = ()) -> None:
        """Write summary.json.

        Args:
            summary: its content, as JSON; the element's fingerprint is added.
            without: gaps to accept, which the summary then lists as `missing_blocks`.

        Raises:
            GapError: other blocks are not committed, or none is.
        """
        missing = self.missing()
        nothing = len(missing) == self.plan.blocks
        self._refuse_gaps(missing if nothing else set(missing) - set(without))
        listed = {"missing_blocks": missing} if missing else {}
        record = {**summary, **listed, "element": self.fingerprint}
        self._backend.replace(self._location.key("summary.json"), seal(record))
        self.__dict__.pop("listed_gaps", None)

    def _failed(self, block: int, table: pa.Table) -> NDArray[np.bool_]:
        """Mask of the failed rows; raises ValueError where `table` does not fit the block."""
        require_columns(table, self.manifest["columns"], self.plan.size(block))
        return failed_rows(table)

    def _write_values(self, block: int, values: Arrays) -> None:
        span = self.plan.span(block)
        with self._backend.writes(f"block {block} of {self._location.folder}"):
            for spec in self._specs:
                array, rows = self._array(spec), values[spec.path]
                write_chunk(array, self._backend, self._location, spec, span, rows)
        self._backend.sync([chunk_key(self._location, spec, block) for spec in self._specs])

    def _read_back(self, block: int, values: Arrays) -> dict[str, NDArray[Any]]:
        """Read the stored values back; raises DamagedError where they are not `values`."""
        span = self.plan.span(block)
        return {
            spec.path: read_checked(
                self._array(spec), self._backend, self._location, spec, span,
                checksum_array(values[spec.path]),
            )
            for spec in self._specs
        }  # fmt: skip

    def _lost_race(self, mine: Commit) -> bool:
        """Return False where the winner stored the same bytes, else raise DamagedError.

        Only where the backend has no locks: this attempt then overwrote the winner's values.
        """
        if mine.same_content(self.commit(mine.block)):
            return False
        raise DamagedError(
            f"two attempts at block {mine.block} of {self._location.folder} in the store "
            f"{self._backend.uri} wrote different values at once: remove its commit record "
            f"commits/{mine.block:05d}.json and run the same command again"
        )
