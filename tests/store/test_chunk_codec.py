"""Chunks decoded in one step: what zarr reads, and nothing that is damaged."""

from __future__ import annotations

import json
from unittest.mock import Mock

import google_crc32c
import numpy as np
import pytest
import zarr
from numcodecs.blosc import Blosc
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from regroup_store.errors import DamagedError
from regroup_store.format import arrays, chunk_codec
from regroup_store.format.arrays import codecs
from regroup_store.format.element import BlockElement
from regroup_store.format.store import Store
from tests.store.elements import FLOATS, fill, make, values


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_a_chunk_is_what_zarr_reads(dtype: str) -> None:
    memory, random = MemoryStore(), np.random.default_rng(0)
    written = (1000 * random.normal(size=(5, 2, 300))).astype(dtype)
    array = zarr.create_array(
        memory,
        shape=(9, 2, 300),
        chunks=(5, 2, 300),
        dtype=dtype,
        fill_value=-1,
        compressors=codecs(),
    )
    array[:5], array[5:] = written, written[:4]
    assert chunk_codec.is_decodable(array)
    for number, there in enumerate((written, written[:4])):
        data = memory._store_dict[f"c/{number}/0/0"].to_bytes()
        found = chunk_codec.decode_chunk(data, (5, 2, 300), dtype)
        assert found.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(found[: len(there)], there)
        assert (found[len(there) :] == -1).all()


@pytest.mark.parametrize("dtype", ["float32", "int64"])
@pytest.mark.parametrize("rows", [5, 4])
def test_zarr_reads_what_is_encoded(dtype: str, rows: int) -> None:
    memory = MemoryStore()
    array = zarr.create_array(
        memory, shape=(9, 300), chunks=(5, 300), dtype=dtype, fill_value=-1, compressors=codecs()
    )
    written = (1000 * np.random.default_rng(0).normal(size=(rows, 300))).astype(dtype)
    array[:rows] = written
    theirs = memory._store_dict["c/0/0"].to_bytes()
    ours = chunk_codec.encode_chunk(array, written)
    assert ours == theirs  # to the last byte, padding included
    memory._store_dict["c/0/0"] = memory._store_dict["c/0/0"].from_bytes(ours)
    np.testing.assert_array_equal(np.asarray(array[:rows]), written)


def _guarded(body: bytes) -> bytes:
    return body + int(google_crc32c.value(body)).to_bytes(4, "little")


def test_damaged_chunks_are_refused() -> None:
    good = _guarded(Blosc("lz4").encode(np.arange(100, dtype=np.float32)))
    np.testing.assert_array_equal(chunk_codec.decode_chunk(good, (100,), "float32"), np.arange(100))
    for place in (0, 5, 20, len(good) - 1):
        bad = bytearray(good)
        bad[place] ^= 1
        with pytest.raises(ValueError, match="crc32c"):
            chunk_codec.decode_chunk(bytes(bad), (100,), "float32")
    for other in (good[:-1], good[:3], b""):
        with pytest.raises(ValueError, match=r"crc32c|bytes"):
            chunk_codec.decode_chunk(other, (100,), "float32")


@pytest.mark.parametrize("size", [99, 101])
def test_a_chunk_of_another_size_is_refused(size: int) -> None:
    data = _guarded(Blosc("lz4").encode(np.arange(size, dtype=np.float32)))
    with pytest.raises(ValueError, match="does not hold 400 bytes"):
        chunk_codec.decode_chunk(data, (100,), "float32")
    with pytest.raises(ValueError, match="does not hold"):
        chunk_codec.decode_chunk(_guarded(b"short"), (100,), "float32")


@pytest.mark.parametrize("others", [[ZstdCodec(level=1)], [ZstdCodec(level=1), Crc32cCodec()]])
def test_arrays_with_other_codecs_stay_readable(
    store: Store, monkeypatch: pytest.MonkeyPatch, others: list[BytesBytesCodec]
) -> None:
    monkeypatch.setattr(arrays, "codecs", lambda: others)
    element = fill(make(store))
    metadata = json.loads(store.backend.read(f"features/{element.ref}/{FLOATS}/zarr.json"))
    assert [codec["name"] for codec in metadata["codecs"]][:2] == ["bytes", "zstd"]
    again = BlockElement.open(store, "features", element.ref)
    for block in range(element.plan.blocks):
        np.testing.assert_array_equal(
            again.read_array(FLOATS, block), values(element, block)[FLOATS]
        )


def test_blocks_do_not_go_through_zarr(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow way may come back unseen otherwise."""
    element = fill(make(any_store))
    decode = Mock(side_effect=chunk_codec.decode_chunk)
    monkeypatch.setattr(arrays, "decode_chunk", decode)
    for block in range(element.plan.blocks):
        element.read_array(FLOATS, block)
    assert decode.call_count == element.plan.blocks


def test_only_the_next_few_chunks_are_announced(
    any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    element, announced = fill(make(any_store)), list[str]()
    monkeypatch.setattr(type(any_store.backend), "prefetch", lambda _, keys: announced.extend(keys))
    wanted = [(FLOATS, block % element.plan.blocks) for block in range(9)]
    ahead = [len(announced) - number for number, _ in enumerate(element.prefetched(wanted))]
    assert ahead == [4, 4, 4, 4, 4, 4, 3, 2, 1]
    assert [key.split("/")[-3] for key in announced] == [str(block) for _, block in wanted]


def test_a_missing_chunk_is_damage(any_store: Store) -> None:
    element = fill(make(any_store))
    any_store.backend.delete(f"features/{element.ref}/{FLOATS}/c/1/0/0")
    wanted = [(FLOATS, block) for block in range(element.plan.blocks)]
    assert list(element.prefetched(wanted)) == wanted, "a hint, never an error"
    with pytest.raises(DamagedError, match=r"the chunk .*/c/1/0/0 is missing"):
        element.read_array(FLOATS, 1)
    element.read_array(FLOATS, 0)
