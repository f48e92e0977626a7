"""Block elements: round trips, resuming, refusals."""

import errno
import json
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_store.errors import (
    DamagedError,
    FingerprintMismatchError,
    GapError,
    SchemaVersionError,
    StoreError,
    StoreUsageError,
)
from regroup_store.format.arrays import ArraySpec
from regroup_store.format.element import BlockElement
from regroup_store.format.element_spec import ElementSpec
from regroup_store.format.fingerprint import fingerprint, seal
from regroup_store.format.store import Store, open_store
from regroup_store.kinds.votes import COLUMNS
from tests.store.elements import (
    ARRAYS,
    FLOATS,
    INPUTS,
    INTS,
    fill,
    make,
    memory_store,
    snapshot,
    spec,
    table,
    values,
)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 25), st.integers(1, 30), st.randoms())
def test_what_is_written_is_read(rows: int, block_rows: int, rng: object) -> None:
    element = make(memory_store(), rows=rows, block_rows=block_rows)
    blocks = list(range(element.plan.blocks))
    rng.shuffle(blocks)  # type: ignore[attr-defined]
    fill(element, *blocks)
    opened = BlockElement.open(Store(element._backend), "features", "tiny")
    assert opened.missing() == []
    for block in blocks:
        for path, expected in values(element, block).items():
            found = opened.read_array(path, block)
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype
        assert opened.read_table(block).equals(table(element, block))
    assert opened.samples(["sample_id"])["sample_id"].to_pylist() == [f"s{i}" for i in range(rows)]


def test_the_layout_is_that_of_the_format(store: Store) -> None:
    element = fill(make(store))
    element.finalise({"rows": 10})
    folder = Path(store.uri) / "features" / element.ref
    hashed = {"schema_version": 1, "kind": "features", **INPUTS}
    assert element.ref == f"tiny-{fingerprint(hashed)[:16]}"
    for name in (
        "manifest.json", "summary.json", "commits/00002.json", "samples/part-00002.parquet",
        "accumulators.zarr/zarr.json", "accumulators.zarr/conv-1/c/2/0/0", "true_rank.zarr/c/2/0",
    ):  # fmt: skip
        assert (folder / name).is_file(), name
    assert not (folder / "zarr.json").exists()
    assert not (Path(store.uri) / "zarr.json").exists()
    array = zarr.open_group(folder / "accumulators.zarr", mode="r")["conv-1"]
    assert isinstance(array, zarr.Array)
    assert (array.shape, array.chunks, array.shards) == ((10, 2, 3), (4, 2, 3), None)
    assert np.isnan(float(array.fill_value))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["arrays"][0] == {"path": FLOATS, "shape": [10, 2, 3], "dtype": "float32"}
    assert manifest["columns"][0] == {"name": "sample_id", "type": "string", "nullable": False}
    assert {"created", "versions", "git_commit"} <= set(manifest["recorded"])


def test_the_fingerprint_ignores_name_plan_and_order_of_inputs() -> None:
    reordered = dict(reversed(INPUTS.items()))
    assert spec().fingerprint == spec(99, 7, "other", reordered).fingerprint
    assert spec().fingerprint != spec(inputs={**INPUTS, "index": "b" * 64}).fingerprint
    with pytest.raises(ValueError, match="may not contain"):
        _ = spec(inputs={"kind": "votes"}).fingerprint


def test_resuming_does_what_is_missing(any_store: Store) -> None:
    fill(make(any_store), 1)
    again = make(any_store, block_rows=5)  # The plan of the element that is there wins.
    assert again.plan.block_rows == 4
    assert again.committed() == {1}
    assert again.missing() == [0, 2]
    fill(again, *again.missing())
    assert make(any_store).missing() == []
    assert len(any_store.elements()) == 1


def test_one_fingerprint_has_one_element_whatever_the_name(any_store: Store) -> None:
    first = make(any_store)
    assert make(any_store, name="renamed").ref == first.ref


def test_a_committed_block_is_not_touched(any_store: Store) -> None:
    element = fill(make(any_store))
    before = snapshot(any_store)
    late = values(element, 1, seed=9)
    assert not element.write_block(1, late, table(element, 1), {})
    after = snapshot(any_store)
    assert after == before


def test_of_sixteen_attempts_one_commits_and_readers_see_it_whole(store: Store) -> None:
    element = make(store, rows=4, block_rows=4)
    barrier = threading.Barrier(16)

    def attempt(seed: int) -> bool:
        mine = BlockElement.open(store, "features", "tiny")
        barrier.wait()
        return mine.write_block(0, values(mine, 0, seed), table(mine, 0), {"seed": seed})

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(attempt, range(16)))
    assert won.count(True) == 1
    expected = values(element, 0, won.index(True))
    np.testing.assert_array_equal(element.read_array(FLOATS, 0), expected[FLOATS])
    assert element.commit(0).report == {"seed": won.index(True)}


def test_without_locks_a_late_attempt_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    store = memory_store()
    element, late = make(store), make(store)
    monkeypatch.setattr(late, "committed_among", lambda blocks: set())
    fill(element, 0)
    assert not late.write_block(0, values(late, 0), table(late, 0), {})  # Same values.
    with pytest.raises(DamagedError, match=r"two attempts at block 0 .*commits/00000\.json"):
        late.write_block(0, values(late, 0, seed=1), table(late, 0), {})
    with pytest.raises(DamagedError, match="checksum"):
        element.read_array(FLOATS, 0)


def test_failed_rows_keep_their_row_and_hold_no_values(any_store: Store) -> None:
    element = make(any_store)
    element.write_block(1, values(element, 1), table(element, 1, failed=(5,)), {"seconds": 0.5})
    floats, ints = element.read_array(FLOATS, 1), element.read_array(INTS, 1)
    assert np.isnan(floats[1]).all()
    assert (ints[1] == -1).all()
    np.testing.assert_array_equal(floats[2:], values(element, 1)[FLOATS][2:])
    rows = element.read_table(1, ["status", "error"]).to_pylist()
    assert rows[1] == {"status": "failed", "error": "truncated"}
    assert (element.commit(1).failed, element.commit(1).rows) == (1, 4)
    assert element.commit(1).report == {"seconds": 0.5}


def test_a_block_whose_rows_all_failed_is_whole(any_store: Store) -> None:
    element = make(any_store)
    element.write_block(0, values(element, 0), table(element, 0, failed=(0, 1, 2, 3)), {})
    assert np.isnan(element.read_array(FLOATS, 0)).all()


def test_gaps_are_refused_by_name(any_store: Store) -> None:
    element = fill(make(any_store, rows=9, block_rows=2), 0, 3)
    for call in (element.samples, lambda: element.finalise({})):
        with pytest.raises(GapError, match=r"3 of 5 blocks are not committed \(1-2, 4\)"):
            call()
    assert element.summary() is None
    with pytest.raises(GapError, match="block 2 of features/tiny"):
        element.read_array(FLOATS, 2)
    with pytest.raises(GapError, match="block 2 of features/tiny"):
        element.read_table(2)


def test_finalised_elements_hold_their_summary(any_store: Store) -> None:
    element = fill(make(any_store))
    element.finalise({"failed": 0})
    assert BlockElement.open(any_store, "features", "tiny").summary() == {"failed": 0}


def test_refs(any_store: Store) -> None:
    first = make(any_store)
    second = make(any_store, inputs={"index": "b"})
    assert BlockElement.open(any_store, "features", second.ref).ref == second.ref
    for ref in (first.fingerprint, first.fingerprint[:16], first.fingerprint[:6]):
        assert BlockElement.open(any_store, "features", ref).fingerprint == first.fingerprint
    with pytest.raises(StoreUsageError, match="say which of") as caught:
        BlockElement.open(any_store, "features", "tiny")
    assert first.ref in str(caught.value)
    assert second.ref in str(caught.value)
    with pytest.raises(StoreUsageError, match=f"it holds: .*{first.ref}"):
        BlockElement.open(any_store, "features", "big")
    with pytest.raises(StoreUsageError, match="it holds: none"):
        BlockElement.open(any_store, "votes", "tiny")
    with pytest.raises(StoreUsageError):
        BlockElement.open(any_store, "features", "../features/tiny")


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a b", "x" * 101, "é"])
def test_names_that_are_not_file_safe_are_refused(any_store: Store, name: str) -> None:
    with pytest.raises(StoreUsageError, match="cannot name an element"):
        make(any_store, name=name)
    assert any_store.elements() == []


def test_an_element_without_rows_is_refused(any_store: Store) -> None:
    with pytest.raises(StoreUsageError, match="0 rows"):
        make(any_store, rows=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {FLOATS: np.zeros((4, 2, 3), np.float64)},
        {FLOATS: np.zeros((3, 2, 3), np.float32)},
        {FLOATS: np.zeros((4, 2, 2), np.float32)},
        {"images.zarr": np.zeros((4, 1), np.float32)},
    ],
)
def test_arrays_of_another_shape_or_name_are_refused(
    store: Store, wrong: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]
) -> None:
    element = make(store)
    with pytest.raises(ValueError, match=r"manifest says|are not those of"):
        element.write_block(0, {**values(element, 0), **wrong}, table(element, 0), {})
    with pytest.raises(IndexError):
        element.write_block(3, values(element, 0), table(element, 0), {})
    assert element.committed() == set()


def test_tables_of_other_columns_rows_or_statuses_are_refused(store: Store) -> None:
    element = make(store)
    good = table(element, 0)
    as_bad = pa.array(["bad"] * 4)
    nulls = pa.array([None] * 4, pa.string())
    for wrong in (
        good.drop_columns(["label"]),
        good.slice(1),
        good.set_column(1, COLUMNS.field("status"), as_bad),
        good.set_column(0, COLUMNS.field("sample_id"), nulls),
    ):
        with pytest.raises(ValueError, match=r"columns|rows|status"):
            element.write_block(0, values(element, 0), wrong, {})
    assert element.committed() == set()


def _edit(store: Store, element: BlockElement, reseal: bool = True, **changes: object) -> None:
    key = f"features/{element.ref}/manifest.json"
    manifest = {**json.loads(store.backend.read(key)), **changes}
    if reseal:
        manifest.pop("checksum")
    store.backend.replace(key, seal(manifest) if reseal else json.dumps(manifest).encode())


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_another_schema_version_is_refused(any_store: Store, version: object) -> None:
    _edit(any_store, make(any_store), schema_version=version)
    with pytest.raises(SchemaVersionError, match=f"version {version}, this release reads .* 1"):
        BlockElement.open(any_store, "features", "tiny")


@pytest.mark.parametrize("reseal", [True, False])
def test_edited_inputs_are_refused(any_store: Store, reseal: bool) -> None:
    element = make(any_store)
    _edit(any_store, element, reseal, inputs={**INPUTS, "index": "c"})
    with pytest.raises(FingerprintMismatchError, match=element.fingerprint[:16]):
        BlockElement.open(any_store, "features", "tiny")
    with pytest.raises(FingerprintMismatchError):
        make(any_store)


def test_an_edited_plan_is_refused(any_store: Store) -> None:
    _edit(any_store, make(any_store), reseal=False, block_rows=5)
    with pytest.raises(DamagedError, match="does not match its own checksum"):
        BlockElement.open(any_store, "features", "tiny")


def test_a_moved_element_is_refused(store: Store) -> None:
    element = make(store)
    folder = Path(store.uri) / "features"
    (folder / element.ref).rename(folder / ("tiny-" + "0" * 16))
    with pytest.raises(FingerprintMismatchError):
        BlockElement.open(store, "features", "tiny")


@pytest.mark.parametrize("path", ["../../x.zarr", "/x.zarr", "x.zarr/../y", "x.zarr/a/b"])
def test_no_path_of_a_manifest_is_trusted(any_store: Store, path: str) -> None:
    element = fill(make(any_store), 0)
    arrays = [{"path": path, "shape": [10, 2, 3], "dtype": "float32"}]
    _edit(any_store, element, arrays=arrays)
    with pytest.raises(DamagedError):
        BlockElement.open(any_store, "features", "tiny").read_array(path, 0)


def test_the_same_fingerprint_with_other_arrays_or_rows_is_refused(any_store: Store) -> None:
    make(any_store)
    with pytest.raises(FingerprintMismatchError, match="other rows"):
        make(any_store, rows=11)
    one = ElementSpec("features", "tiny", INPUTS, 10, 4, ARRAYS[:1], COLUMNS)
    with pytest.raises(FingerprintMismatchError, match="other arrays"):
        BlockElement.create(any_store, one, {})


def test_unknown_arrays_are_refused(any_store: Store) -> None:
    element = fill(make(any_store))
    with pytest.raises(StoreUsageError, match=r"no array 'images.zarr'; it has: accumulators.zarr"):
        element.read_array("images.zarr", 0)


@pytest.mark.parametrize(
    ("path", "tail", "dtype"),
    [("x", (1,), "float32"), ("x.zarr", (0,), "float32"), ("x.zarr", (1,), "object")],
)
def test_specs_that_no_store_can_hold_are_refused(
    path: str, tail: tuple[int, ...], dtype: str
) -> None:
    with pytest.raises(ValueError, match=r"is not"):
        ArraySpec(path, tail, dtype)


def test_arrays_lost_between_manifest_and_first_block_are_made_again(any_store: Store) -> None:
    element = make(any_store)
    any_store.backend.delete(f"features/{element.ref}/{FLOATS}/zarr.json")
    with pytest.raises(DamagedError, match="cannot be opened"):
        fill(BlockElement.open(any_store, "features", "tiny"), 0)
    fill(make(any_store))


def test_elements_travel_to_other_processes(store: Store) -> None:
    element = fill(make(store), 0)
    copy = pickle.loads(pickle.dumps(element))  # noqa: S301  (our own bytes)
    fill(copy, 1, 2)
    assert element.missing() == []


@pytest.mark.parametrize(("code", "status"), [(errno.ENOSPC, 1), (errno.EROFS, 2)])
def test_a_full_or_read_only_disk_commits_nothing_and_keeps_the_rest(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, status: int
) -> None:
    element = fill(make(store), 0)

    def fail(path: Path, *args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("regroup_store.backends.local._write_new", fail)
    with pytest.raises(StoreError, match=r"no space left|read-only") as caught:
        element.write_block(1, values(element, 1), table(element, 1), {})
    assert caught.value.exit_status == status
    assert element.committed() == {0}
    np.testing.assert_array_equal(element.read_array(FLOATS, 0), values(element, 0)[FLOATS])
    monkeypatch.undo()
    fill(element, 1, 2)


def test_a_store_that_vanishes_is_one_sentence(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "s"), create=True)
    element = make(store)
    (tmp_path / "s").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="has vanished"):
        element.write_block(0, values(element, 0), table(element, 0), {})
    assert not (tmp_path / "s").exists()
