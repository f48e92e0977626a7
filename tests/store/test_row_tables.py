"""Tables of rows written as a stream: listings and indexes."""

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_store.errors import StoreUsageError
from regroup_store.format import row_tables
from regroup_store.format.store import Store
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.kinds.listings import Listing
from regroup_store.maintenance.verify import verify_store
from regroup_store.sources import Source, open_source
from tests.store.elements import memory_store, snapshot
from tests.store.test_indexes import CLASSES, rows

PART_ROWS = 4


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_tables, "PART_ROWS", PART_ROWS)


def list_into(store: Store, name: str, source: Source) -> Listing:
    with Listing.drafted(name, source) as draft:
        return draft.write(store, {})


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 20), cuts=st.lists(st.integers(0, 20)))
def test_a_stream_is_the_same_index_however_it_is_cut(count: int, cuts: list[int]) -> None:
    edges = sorted({0, count, *(cut for cut in cuts if cut < count)})
    store, whole = memory_store(), rows(count)
    stream = (whole.slice(start, stop - start) for start, stop in pairwise(edges))
    index = SampleIndex.write(store, "a", stream, CLASSES, "digits")
    assert index.rows().equals(whole)
    other = memory_store()
    assert SampleIndex.write(other, "a", [whole], CLASSES, "digits").ref == index.ref
    parts = {k: v for k, v in snapshot(store).items() if k.endswith("parquet")}
    assert parts == {k: v for k, v in snapshot(other).items() if k.endswith("parquet")}
    assert len(parts) == -(-count // PART_ROWS)


@settings(max_examples=40, deadline=None)
@given(chosen=st.lists(st.integers(0, 10), min_size=1, max_size=15))
def test_taken_rows_come_in_the_order_asked_for(chosen: list[int]) -> None:
    index = SampleIndex.write(memory_store(), "a", [rows(11)], CLASSES, "digits")
    taken = list(index.take(chosen))
    assert max(table.num_rows for table in taken) <= PART_ROWS
    assert pa.concat_tables(taken).equals(rows(11).take(chosen))


@pytest.mark.parametrize("at", [1, 3, 4, 10])
def test_an_id_is_repeated_wherever_its_rows_are(any_store: Store, at: int) -> None:
    stream = [rows(at), rows(11 - at)]
    with pytest.raises(StoreUsageError, match="'s0' twice"):
        SampleIndex.write(any_store, "a", stream, CLASSES, "digits")
    assert any_store.backend.keys("indexes") == []


def test_equal_hashes_of_different_ids_are_no_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xxhash.xxh3_64_intdigest", lambda data: 7)
    index = SampleIndex.write(memory_store(), "a", [rows(11)], CLASSES, "digits")
    assert index.rows_count == 11
    with pytest.raises(StoreUsageError, match="'s0' twice"):
        SampleIndex.write(memory_store(), "a", [rows(11), rows(1)], CLASSES, "digits")


def test_a_stream_that_breaks_leaves_nothing(any_store: Store, tmp_path: Path) -> None:
    def broken() -> object:
        yield rows(9)
        raise StoreUsageError("b.parquet#3: label None is not a class index")

    with pytest.raises(StoreUsageError, match="#3"):
        SampleIndex.write(any_store, "a", broken(), CLASSES, "digits")  # type: ignore[arg-type]
    assert any_store.backend.keys("indexes") == []


def test_a_listing_holds_what_the_source_lists(any_store: Store) -> None:
    source = open_source("digits:val")
    listing = list_into(any_store, "digits-val", source)
    listed = list(source.rows())
    assert listing.rows().to_pylist() == [
        {"sample_id": r.sample_id, "label": r.label, "locator": r.locator, "stamp": r.stamp}
        for r in listed
    ]
    assert (listing.class_names, listing.source_spec) == (source.class_names, "digits:val")
    before = snapshot(any_store)
    assert list_into(any_store, "digits-val", source).ref == listing.ref
    assert snapshot(any_store) == before
    assert list(verify_store(any_store)) == []


def test_another_stamp_is_another_listing(tmp_path: Path) -> None:
    import os

    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(b"x")
    store = memory_store()
    first = list_into(store, "cats", open_source(f"imagefolder:{tmp_path}"))
    os.utime(tmp_path / "cat" / "a.png", ns=(1, 1))
    second = list_into(store, "cats", open_source(f"imagefolder:{tmp_path}"))
    assert first.fingerprint != second.fingerprint
    assert first.digests_spec().fingerprint != second.digests_spec().fingerprint
