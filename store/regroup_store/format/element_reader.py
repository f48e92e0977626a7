"""Reading an element whose blocks are written, committed and read one by one."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import pyarrow as pa

from regroup_store.errors import GapError, StoreUsageError
from regroup_store.format.arrays import (
    ArraySpec,
    chunk_key,
    open_array,
    read_checked,
    specs_from_json,
)
from regroup_store.format.block_plan import format_blocks
from regroup_store.format.commits import (
    Commit,
    commit_key,
    committed_blocks,
    read_commit,
    require_own,
)
from regroup_store.format.fingerprint import unseal
from regroup_store.format.gaps import accepted_gaps, failed_table, missing_blocks, rows_of_index
from regroup_store.format.manifests import (
    Location,
    block_plan,
    locate,
    read_manifest,
)
from regroup_store.format.parquet_parts import (
    part_name,
    read_part,
)
from regroup_store.format.quarantine import (
    Quarantined,
    quarantined_blocks,
    read_quarantine,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from regroup_store.backends.base import Backend
    from regroup_store.format.chunk_codec import ZarrArray
    from regroup_store.format.store import Store

# Commit records kept in memory by a reader, which must not grow with the number of blocks.
COMMITS_KEPT = 256
# Chunks announced to the backend before they are read.
PREFETCHED = 4


class ElementReader:
    """An element of `rows` rows, read block by block.

    Instances may be pickled and used in several processes.

    Attributes:
        manifest: of the element.
        plan: its block plan.
    """

    def __init__(self, backend: Backend, location: Location, manifest: dict[str, object]) -> None:
        self.manifest = manifest
        self._backend = backend
        self._location = location
        self._specs = specs_from_json(manifest.get("arrays"), f"{location.folder}/manifest.json")
        self._arrays: dict[str, ZarrArray] = {}
        self._commits: dict[int, Commit] = {}
        self._accepted: frozenset[int] | None = None
        self.plan = block_plan(manifest, location)

    @classmethod
    def open(cls, store: Store, kind: str, ref: str) -> Self:
        """Open the element that `ref` names; `manifests.locate` documents the errors."""
        location = locate(store.backend, kind, ref)
        return cls(store.backend, location, read_manifest(store.backend, location))

    @property
    def name(self) -> str:
        """The name under which it was created."""
        return self._location.name

    @property
    def ref(self) -> str:
        """`<name>-<first 16 characters of the fingerprint>`."""
        return self._location.ref

    @property
    def kind(self) -> str:
        """One of `BLOCK_KINDS`."""
        return self._location.kind

    @property
    def fingerprint(self) -> str:
        """The fingerprint, 64 hex characters."""
        return str(self.manifest["fingerprint"])

    @property
    def inputs(self) -> dict[str, object]:
        """All that determines the content, as hashed."""
        stated: Any = self.manifest["inputs"]
        return cast("dict[str, object]", copy(stated))

    @property
    def column_names(self) -> list[str]:
        """The names of the columns of its samples tables."""
        columns: Any = self.manifest["columns"]
        return [str(column["name"]) for column in columns]

    @property
    def arrays(self) -> tuple[ArraySpec, ...]:
        """The arrays, in the order of the manifest."""
        return self._specs

    def committed(self) -> set[int]:
        """The blocks that have a commit record."""
        return committed_blocks(self._backend, self._location, self.plan)

    def missing(self) -> list[int]:
        """List the planned blocks without a commit record: what a run has left to do."""
        return sorted(set(range(self.plan.blocks)) - self.committed())

    def committed_among(self, blocks: Iterable[int]) -> set[int]:
        """Those of `blocks` that are committed, without listing all commits."""
        keys = {block: commit_key(self._location, block) for block in blocks}
        return {block for block, key in keys.items() if self._backend.exists(key)}

    def commit(self, block: int) -> Commit:
        """Read the commit record of `block`.

        Raises:
            GapError: the block is not committed.
            DamagedError: the record is not what was written.
        """
        if block not in self._commits:
            if len(self._commits) >= COMMITS_KEPT:
                self._commits.pop(next(iter(self._commits)))
            self._commits[block] = read_commit(self._backend, self._location, block)
        return self._commits[block]

    @cached_property
    def listed_gaps(self) -> frozenset[int]:
        """The blocks that summary.json lists as missing from the finalised element.

        Raises:
            DamagedError: the summary is not what was written.
        """
        where = f"{self._location.key('summary.json')} of the store {self._backend.uri}"
        return missing_blocks(self.summary(), where)

    @property
    def gaps(self) -> list[int]:
        """The known gaps: blocks whose samples this reader sees as failed rows.

        They are those of `accept_gaps`, else those that the element was finalised without and that
        have not been committed since.
        """
        if self._accepted is not None:
            return sorted(self._accepted)
        return sorted(self.listed_gaps - self.committed()) if self.listed_gaps else []

    def accept_gaps(self, blocks: Iterable[int]) -> None:
        """Take exactly these blocks as known gaps from now on, even if they are committed.

        Several processes that make an element from this one thus all see the same rows.
        """
        self._accepted = frozenset(blocks)

    def accept_gaps_of(self, derived: Mapping[str, object]) -> None:
        """Accept the gaps that the inputs of an element made from this one name."""
        self.accept_gaps(accepted_gaps(derived))

    def gap_inputs(self) -> dict[str, object]:
        """Inputs that an element made from this one has to add: none unless this one has gaps."""
        if not self.gaps:
            return {}
        return {"input_gaps": {"block_rows": self.plan.block_rows, "blocks": self.gaps}}

    def quarantined(self) -> list[Quarantined]:
        """List why blocks failed, in block order, except for blocks committed since."""
        blocks = quarantined_blocks(self._backend, self._location)
        left = [block for block in blocks if block not in self.committed_among(blocks)]
        return [read_quarantine(self._backend, self._location, block) for block in left]

    def read_array(self, path: str, block: int) -> NDArray[Any]:
        """Read a block of an array, (rows of the block, *tail), verified against its commit.

        The rows of a known gap (`gaps`) have failed: NaN, or -1.

        Raises:
            GapError: the block is not committed, and is not a known gap.
            DamagedError: the values are not what was written.
            StoreUsageError: the element has no such array.
        """
        spec, commit, span = self._spec(path), self._commit_or_gap(block), self.plan.span(block)
        if commit is None:
            return np.full(spec.shape(self.plan.size(block)), spec.fill, spec.dtype)
        checksum = str(commit.arrays.get(path))
        array = self._array(spec)
        return read_checked(array, self._backend, self._location, spec, span, checksum)

    def prefetched(self, wanted: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int]]:
        """Yield the (array, block) pairs `wanted` unmodified, while the next ones are prefetched.

        Only the next few are announced to the backend: of more, a disk would read what is needed
        first too late (docs/format.md, "What was measured").
        """
        keys = [chunk_key(self._location, self._spec(path), block) for path, block in wanted]
        self._backend.prefetch(keys[:PREFETCHED])
        for number, pair in enumerate(wanted, PREFETCHED):
            yield pair
            self._backend.prefetch(keys[number : number + 1])

    def read_table(self, block: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of a block, or some columns of them, verified against its commit.

        Every row of a known gap (`gaps`) has failed.

        Raises:
            GapError: the block is not committed, and is not a known gap.
            DamagedError: the part is not what was written.
        """
        commit = self._commit_or_gap(block)
        if commit is None:
            rows = self._gap_rows(block)
            return rows if columns is None else rows.select([*columns])
        rows = self.plan.size(block)
        return read_part(self._backend, self._part_key(block), commit.table, columns, rows)

    def samples(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of all blocks in order.

        Raises:
            GapError: blocks are missing; the message lists them.
            DamagedError: a part is not what was written.
        """
        self._refuse_gaps(set(self.missing()) - set(self.gaps))
        blocks = range(self.plan.blocks)
        return pa.concat_tables([self.read_table(block, columns) for block in blocks])

    def summary(self) -> dict[str, object] | None:
        """Read what `finalise` was given; None before that.

        Raises:
            DamagedError: it is not what was written, or another element's.
        """
        found = self.summary_record()
        return found and {key: value for key, value in found.items() if key != "element"}

    def summary_record(self) -> dict[str, object] | None:
        """Read the summary as stored, with its element's fingerprint; None before there is one."""
        key = self._location.key("summary.json")
        where = f"{key} of the store {self._backend.uri}"
        try:
            record = unseal(self._backend.read(key), where)
        except FileNotFoundError:
            return None
        require_own(record, self._location, where)
        return record

    def _refuse_gaps(self, missing: Collection[int]) -> None:
        if missing:
            raise GapError(
                f"{self._location.folder} of the store {self._backend.uri} has gaps: "
                f"{len(missing)} of {self.plan.blocks} blocks are not committed "
                f"({format_blocks([*missing])}); run the command that writes it again"
            )

    def _commit_or_gap(self, block: int) -> Commit | None:
        """Read the commit record of a block; None for a known gap, GapError for any other."""
        if block in (self._accepted or ()):
            return None
        try:
            return self.commit(block)
        except GapError:
            if self._accepted is None and block in self.listed_gaps:
                return None
            raise

    def _gap_rows(self, block: int) -> pa.Table:
        what = f"block {block} of {self._location.folder}"
        span = self.plan.span(block)
        samples = rows_of_index(self._backend, self.kind, self.inputs, span, what)
        columns: Any = self.manifest["columns"]
        return failed_table(samples, columns, f"{what} is missing")

    def _spec(self, path: str) -> ArraySpec:
        for spec in self._specs:
            if spec.path == path:
                return spec
        known = ", ".join(spec.path for spec in self._specs)
        raise StoreUsageError(f"{self._location.folder} has no array {path!r}; it has: {known}")

    def _array(self, spec: ArraySpec) -> ZarrArray:
        if spec.path not in self._arrays:
            self._arrays[spec.path] = open_array(
                self._backend, self._location, spec, self.plan.rows, self.plan.block_rows
            )
        return self._arrays[spec.path]

    def _part_key(self, block: int) -> str:
        return self._location.key("samples", part_name(block))
