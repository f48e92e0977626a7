"""Sample indexes."""

import hashlib
import json

import pyarrow as pa
import pytest

from regroup_store.errors import DamagedError, StoreUsageError
from regroup_store.format import row_tables
from regroup_store.format.store import Store
from regroup_store.kinds.indexes import COLUMNS, SampleIndex
from tests.store.elements import memory_store, snapshot

CLASSES = ("cat", "dog", "newt")


def rows(count: int, prefix: str = "") -> pa.Table:
    columns = {
        "sample_id": [f"s{i}" for i in range(count)],
        "label": [i % 3 for i in range(count)],
        "locator": [f"{prefix}{i}.png" for i in range(count)],
        "digest": [f"{i:032x}" for i in range(count)],
    }
    return pa.table(columns, schema=COLUMNS)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_tables, "PART_ROWS", 4)


@pytest.mark.parametrize("count", [1, 4, 5, 11])
def test_what_is_written_is_read(any_store: Store, count: int) -> None:
    written = SampleIndex.write(any_store, "train", [rows(count)], CLASSES, "digits:train")
    index = SampleIndex.open(any_store, "train")
    assert index.fingerprint == written.fingerprint
    assert index.rows().equals(rows(count))
    assert (index.rows_count, index.class_names) == (count, CLASSES)
    assert index.source_spec == "digits:train"
    for start in range(count):
        for stop in range(start, count + 1):
            assert index.rows(slice(start, stop)).equals(rows(count).slice(start, stop - start))
    assert index.rows(slice(0, 1), ["label"]).column_names == ["label"]
    (info,) = any_store.elements("indexes")
    assert (info.rows, info.finalised) == (count, True)


def test_the_fingerprint_is_what_the_format_says() -> None:
    index = SampleIndex.write(memory_store(), "a", [rows(2)], CLASSES, "digits")
    lines = f'["s0",0,"{0:032x}"]\n["s1",1,"{1:032x}"]\n'
    samples = hashlib.sha256(lines.encode()).hexdigest()
    inputs = {"class_names": [*CLASSES], "kind": "indexes", "samples": samples, "schema_version": 1}
    text = json.dumps(inputs, separators=(",", ":"))
    assert index.fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_a_dataset_that_moved_is_the_same_index_at_its_new_place(any_store: Store) -> None:
    first = SampleIndex.write(any_store, "a", [rows(6)], CLASSES, "imagefolder:/old")
    moved = SampleIndex.write(any_store, "b", [rows(6, "new/")], CLASSES, "imagefolder:/new")
    assert moved.ref == first.ref
    opened = SampleIndex.open(any_store, "a")
    assert opened.source_spec == "imagefolder:/new"
    assert opened.rows()["locator"].to_pylist()[5] == "new/5.png"


def test_writing_the_same_index_again_changes_nothing(any_store: Store) -> None:
    SampleIndex.write(any_store, "a", [rows(6)], CLASSES, "digits")
    before = snapshot(any_store)
    SampleIndex.write(any_store, "a", [rows(6)], CLASSES, "digits")
    assert snapshot(any_store) == before


def test_derived_indexes_carry_rows_over(any_store: Store) -> None:
    parent = SampleIndex.write(any_store, "all", [rows(9)], CLASSES, "digits")
    selection = {"correct_under": "f" * 64, "limit": 3}
    derived = parent.derive(any_store, "correct", [2, 5, 8], selection)
    assert derived.rows().equals(rows(9).take([2, 5, 8]))
    assert (derived.class_names, derived.source_spec) == (CLASSES, "digits")
    inputs = derived.manifest["inputs"]
    assert isinstance(inputs, dict)
    assert (inputs["parent"], inputs["selection"]) == (parent.fingerprint, selection)
    other = parent.derive(any_store, "correct", [2, 5, 8], {"limit": 4})
    assert other.fingerprint != derived.fingerprint
    with pytest.raises(StoreUsageError, match="no rows"):
        parent.derive(any_store, "none", [], selection)


def _without(table: pa.Table, column: int, values: list[object]) -> pa.Table:
    field = COLUMNS.field(column)
    return table.set_column(column, field, pa.array(values, field.type))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (rows(0), "no rows"),
        (_without(rows(3), 0, ["a", "b", "a"]), "'a' twice"),
        (_without(rows(3), 1, [0, 3, 1]), "label 3, but there are 3 classes"),
        (_without(rows(3), 1, [0, -1, 1]), "label -1"),
    ],
)
def test_unusable_rows_are_refused(any_store: Store, table: pa.Table, words: str) -> None:
    with pytest.raises(StoreUsageError, match=words):
        SampleIndex.write(any_store, "a", [table], CLASSES, "digits")
    assert any_store.backend.keys("indexes") == []


def test_a_damaged_or_missing_part_is_named(any_store: Store) -> None:
    index = SampleIndex.write(any_store, "a", [rows(6)], CLASSES, "digits")
    key = f"indexes/{index.ref}/part-00001.parquet"
    any_store.backend.replace(key, any_store.backend.read(key)[:-1] + b"!")
    opened = SampleIndex.open(any_store, "a")
    assert opened.rows(slice(0, 4)).num_rows == 4
    with pytest.raises(DamagedError, match=r"part-00001\.parquet .*checksum"):
        opened.rows(slice(3, 5))
    any_store.backend.delete(key)
    with pytest.raises(DamagedError, match=r"part-00001\.parquet .*is missing"):
        opened.rows()


def test_a_part_size_of_another_writer_is_followed(
    any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    SampleIndex.write(any_store, "a", [rows(6)], CLASSES, "digits")
    monkeypatch.setattr(row_tables, "PART_ROWS", 100)
    assert SampleIndex.open(any_store, "a").rows(slice(4, 6)).equals(rows(6).slice(4))


def test_deep_images_give_another_fingerprint_and_nothing_else_does() -> None:
    store = memory_store()
    plain = SampleIndex.write(store, "a", [rows(6)], CLASSES, "digits", deep=lambda: False)
    before = SampleIndex.write(memory_store(), "a", [rows(6)], CLASSES, "digits")
    deep = SampleIndex.write(store, "a", [rows(6)], CLASSES, "digits", deep=lambda: True)
    assert (plain.fingerprint, plain.deep) == (before.fingerprint, False)
    assert (deep.fingerprint == plain.fingerprint, deep.deep) == (False, True)
    assert deep.derive(store, "part", [1, 0], {}).deep
    assert not plain.derive(store, "part", [1, 0], {}).deep


def test_what_was_left_out_is_recorded_anew_and_not_hashed(any_store: Store) -> None:
    def written(left_out: dict[str, object]) -> SampleIndex:
        recorded = {"left_out": left_out}
        return SampleIndex.write(any_store, "a", [rows(6)], CLASSES, "digits", recorded)

    first = written({})
    before = snapshot(any_store)
    assert written({}).left_out == {}
    assert snapshot(any_store) == before  # nothing is written again
    hidden: dict[str, object] = {"hidden": {"count": 2, "first": [".a", ".b"]}}
    second = written(hidden)
    assert (second.fingerprint, second.left_out) == (first.fingerprint, hidden)
    assert SampleIndex.open(any_store, "a").left_out == hidden
    assert written({}).left_out == {}
