"""Whatever is truncated, flipped or deleted is named, and never read as data."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_store.errors import DamagedError, GapError, StoreError
from regroup_store.format.element import BlockElement
from regroup_store.format.store import Store
from tests.store.elements import FLOATS, INTS, fill, make, memory_store, table, values

CHUNK = f"{FLOATS}/c/1/0/0"
LAST_CHUNK = f"{FLOATS}/c/2/0/0"
PART, COMMIT = "samples/part-00001.parquet", "commits/00001.json"


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def empty(data: bytes) -> bytes:
    return b""


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _damage(store: Store, element: BlockElement, name: str, how: Callable[[bytes], bytes]) -> None:
    key = f"features/{element.ref}/{name}"
    store.backend.replace(key, how(store.backend.read(key)))


def _read_everything(store: Store) -> None:
    opened = _opened(store)
    for block in range(opened.plan.blocks):
        opened.read_array(FLOATS, block)
        opened.read_table(block)
    opened.summary()


def _opened(store: Store) -> BlockElement:
    return BlockElement.open(store, "features", "tiny")


@pytest.mark.parametrize("how", [truncate, empty, flip])
@pytest.mark.parametrize("name", [CHUNK, PART, COMMIT, "manifest.json", "summary.json"])
def test_changed_bytes_are_named(
    any_store: Store, name: str, how: Callable[[bytes], bytes]
) -> None:
    element = fill(make(any_store))
    element.finalise({"rows": 10, "note": "long enough to be flipped within"})
    _damage(any_store, element, name, how)
    with pytest.raises(StoreError) as caught:
        _read_everything(any_store)
    assert caught.value.exit_status in (1, 2)
    expected = "rows 4-7 of " if name == CHUNK else f"{element.ref}/{name}"
    assert expected in str(caught.value)
    assert any_store.uri in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "words"), [(CHUNK, "is missing"), (PART, "is missing")])
def test_deleted_values_are_named(any_store: Store, name: str, words: str) -> None:
    element = fill(make(any_store))
    any_store.backend.delete(f"features/{element.ref}/{name}")
    opened = _opened(any_store)
    with pytest.raises(DamagedError, match=f"{name} .*{words}|{name} {words}"):
        _read_everything(any_store)
    np.testing.assert_array_equal(opened.read_array(INTS, 1), values(element, 1)[INTS])


def test_a_deleted_commit_makes_a_gap(any_store: Store) -> None:
    element = fill(make(any_store))
    any_store.backend.delete(f"features/{element.ref}/{COMMIT}")
    opened = _opened(any_store)
    assert opened.missing() == [1]
    with pytest.raises(GapError, match="block 1"):
        opened.read_array(FLOATS, 1)


def test_the_commit_of_another_block_is_refused(any_store: Store) -> None:
    element = fill(make(any_store))
    other = any_store.backend.read(f"features/{element.ref}/commits/00000.json")
    any_store.backend.replace(f"features/{element.ref}/{COMMIT}", other)
    with pytest.raises(DamagedError, match="another block"):
        _opened(any_store).read_array(FLOATS, 1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_to_a_chunk_is_read_as_data(data: st.DataObject) -> None:
    store = memory_store()
    element = fill(make(store))
    key = f"features/{element.ref}/{CHUNK}"
    whole = bytearray(store.backend.read(key))
    position = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[position] ^= data.draw(st.integers(1, 255))
    else:
        del whole[position:]
    store.backend.replace(key, bytes(whole))
    with pytest.raises(DamagedError):
        _opened(store).read_array(FLOATS, 1)


@pytest.mark.parametrize("how", [truncate, flip])
@pytest.mark.parametrize("block", [1, 2])
def test_a_damaged_block_is_written_again_after_its_commit_is_removed(
    any_store: Store, how: Callable[[bytes], bytes], block: int
) -> None:
    element = fill(make(any_store))
    _damage(any_store, element, CHUNK if block == 1 else LAST_CHUNK, how)
    any_store.backend.delete(f"features/{element.ref}/commits/{block:05d}.json")
    again = make(any_store)
    assert again.missing() == [block]
    assert again.write_block(block, values(again, block), table(again, block), {})
    np.testing.assert_array_equal(
        _opened(any_store).read_array(FLOATS, block), values(element, block)[FLOATS]
    )


def test_array_metadata_that_disagrees_with_the_manifest_is_refused(any_store: Store) -> None:
    element = fill(make(any_store))
    key = f"features/{element.ref}/{FLOATS}/zarr.json"
    text = any_store.backend.read(key).replace(b"float32", b"float64")
    any_store.backend.replace(key, text)
    with pytest.raises(DamagedError, match="manifest says float32"):
        _opened(any_store).read_array(FLOATS, 0)
