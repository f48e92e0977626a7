"""Checkpoints of a block: kept, read back intact or not at all, removed with the commit."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from regroup_store.format.checkpoints import BlockCheckpoints, checkpointed_blocks
from regroup_store.format.element import BlockElement
from regroup_store.format.store import Store, open_store
from tests.store.elements import make, memory_store, table, values


@pytest.fixture(params=["folder", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store in a folder, and one in an object store."""
    if request.param == "objects":
        return memory_store()
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def element(store: Store) -> BlockElement:
    return make(store)


def rows(*numbers: int) -> pa.Table:
    return pa.table({"row": list(numbers)})


def read(kept: BlockCheckpoints) -> list[list[int]]:
    return [found["row"].to_pylist() for found in kept.read(lambda _: True)]


def files(store: Store, element: BlockElement) -> list[str]:
    return store.backend.keys(f"{element.kind}/{element.ref}/checkpoints")


def test_what_is_kept_is_read_back_in_order(store: Store, element: BlockElement) -> None:
    kept = element.checkpoints(1)
    kept.add(4, rows(4, 5))
    kept.add(0, rows(0, 1))
    assert read(element.checkpoints(1)) == [[0, 1], [4, 5]]
    assert read(element.checkpoints(0)) == []
    assert element.committed() == set(), "no block is committed by it"
    for key in files(store, element):
        assert key.startswith(f"features/{element.ref}/checkpoints/00001/0000")
        assert key.endswith(".parquet")
    kept.clear()
    kept.clear()
    assert files(store, element) == []


def test_attempts_at_once_do_not_write_over_each_other(element: BlockElement) -> None:
    """They have the same rows, and seconds of their own."""
    for seconds in (1.0, 2.0):
        element.checkpoints(0).add(0, pa.table({"row": [0], "seconds": [seconds]}))
    assert read(element.checkpoints(0)) == [[0], [0]]


def test_no_damaged_byte_is_read(store: Store, element: BlockElement) -> None:
    kept = element.checkpoints(0)
    kept.add(0, rows(0, 1))
    (key,) = files(store, element)
    data = store.backend.read(key)
    for place in range(0, len(data), 17):
        store.backend.replace(key, data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        assert read(kept) == []
        assert files(store, element) == [], "it is removed"
    for length in (0, 1, len(data) - 1):
        store.backend.replace(key, data[:length])
        assert read(kept) == []
    store.backend.replace(key, data)
    assert read(kept) == [[0, 1]]


def test_what_does_not_fit_is_removed(store: Store, element: BlockElement) -> None:
    kept = element.checkpoints(0)
    kept.add(0, rows(0))
    kept.add(1, rows(1))
    found = kept.read(lambda each: each["row"][0].as_py() == 1)
    assert [each["row"].to_pylist() for each in found] == [[1]]
    assert len(files(store, element)) == 1


def test_only_those_of_committed_blocks_are_cleared(store: Store, element: BlockElement) -> None:
    for block in (0, 2):
        element.checkpoints(block).add(0, rows(0))
    location, backend = element.checkpoints(0).location, store.backend
    assert checkpointed_blocks(backend, location) == [0, 2]
    assert element.write_block(0, values(element, 0), table(element, 0), {})
    element.clear_checkpoints()
    assert checkpointed_blocks(backend, location) == [2]
