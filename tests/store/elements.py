"""Small elements that the store's tests write."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from obstore.store import MemoryStore

from regroup_store.backends.object_store import ObjectBackend
from regroup_store.format.arrays import ArraySpec
from regroup_store.format.element import BlockElement
from regroup_store.format.element_spec import ElementSpec
from regroup_store.format.fingerprint import canonical_json
from regroup_store.format.store import MARKER, Store, open_store
from regroup_store.kinds.votes import COLUMNS

INPUTS = {"model": {"name": "tiny", "epsilon": 0.1}, "index": "a" * 64}
FLOATS, INTS = "accumulators.zarr/conv-1", "true_rank.zarr"
ARRAYS = (ArraySpec(FLOATS, (2, 3), "float32"), ArraySpec(INTS, (4,), "int32"))


def memory_store() -> Store:
    """A store in an object store that lives in this process."""
    backend = ObjectBackend(MemoryStore(), "memory://test")
    backend.create(MARKER, canonical_json({"format": "regroup-store", "schema_version": 1}))
    return Store(backend)


def snapshot(store: Store) -> dict[str, bytes]:
    """All bytes of a store, by key."""
    return {key: store.backend.read(key) for key in store.backend.keys("")}


def written_on_each(write: Callable[[Store], object], folder: Path) -> dict[bool, dict[str, bytes]]:
    """All bytes that `write` leaves, by whether the backend locks: in a folder, and in memory."""
    stores = open_store(str(folder), create=True), memory_store()
    for store in stores:
        write(store)
    return {store.backend.locks: snapshot(store) for store in stores}


def copy_into(store: Store, written: dict[bool, dict[str, bytes]]) -> Store:
    """Put into an empty store what was written on its backend; quicker than to write it again."""
    for key, data in written[store.backend.locks].items():
        store.backend.replace(key, data)
    return store


def spec(
    rows: int = 10,
    block_rows: int = 4,
    name: str = "tiny",
    inputs: Mapping[str, object] | None = None,
) -> ElementSpec:
    return ElementSpec("features", name, inputs or INPUTS, rows, block_rows, ARRAYS, COLUMNS)


def make(store: Store, **changes: object) -> BlockElement:
    return BlockElement.create(store, spec(**changes), {})  # type: ignore[arg-type]


def values(element: BlockElement, block: int, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """The arrays of a block, a function of (seed, block) alone."""
    rows = element.plan.size(block)
    random = np.random.default_rng([seed, block])
    return {
        FLOATS: random.lognormal(size=(rows, 2, 3)).astype(np.float32),
        INTS: random.integers(0, 9, size=(rows, 4), dtype=np.int32),
    }


def table(element: BlockElement, block: int, failed: tuple[int, ...] = ()) -> pa.Table:
    span = element.plan.span(block)
    rows = range(span.start, span.stop)
    columns = {
        "sample_id": [f"s{row}" for row in rows],
        "status": ["failed" if row in failed else "ok" for row in rows],
        "error": ["truncated" if row in failed else None for row in rows],
        "label": [row % 3 for row in rows],
        "prediction": [row % 2 for row in rows],
        "top5_correct": [True for _ in rows],
        "success": [None for _ in rows],
    }
    return pa.table(columns, schema=COLUMNS)


def fill(element: BlockElement, *blocks: int) -> BlockElement:
    """Write the given blocks, or all."""
    for block in blocks or range(element.plan.blocks):
        assert element.write_block(block, values(element, block), table(element, block), {})
    return element
