"""Every byte of everything that is stored: verify names it, or it means the same."""

import json
import random
from collections.abc import Callable

import numpy as np
import pytest

from regroup_store.errors import DamagedError, StoreUsageError
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import seal, unseal
from regroup_store.format.store import Store
from regroup_store.kinds.banks import read_bank
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.kinds.studies import write_study, write_timing
from regroup_store.maintenance.repair import apply_repair, plan_repairs
from regroup_store.maintenance.verify import verify_store
from tests.store.elements import fill, make, memory_store
from tests.store.test_verify import features, write_bank, write_index

INPUTS = {"what": "inference time", "k": 3}
RUN = {"run": "r", "command": "run", "state": "done", "steps": []}


def everything() -> Store:
    """A store with something of every sort, whole."""
    store = memory_store()
    element = features(store, write_index(store))
    bank = write_bank(store)
    unfinished = fill(make(store, name="begun"), 0)
    unfinished.quarantine(1, 3, "ValueError: poison")
    row: dict[str, object] = {"bank_ref": bank, "votes": {}, "adversarials": None, "index": "pets"}
    index = SampleIndex.open(store, "pets").ref
    write_study(store, "small", {"study": "small", "evaluations": [row | {"index": index}]})
    write_timing(store, "small", "cpu-" + _short(INPUTS), INPUTS, {"rounds": 2, "times": [0.5]})
    for name in ("run.json", "progress.json"):
        store.backend.replace(f"runs/20260101T000000Z-run-00000000/{name}", seal(RUN))
    assert element.missing() == []
    return store


def _short(inputs: dict[str, object]) -> str:
    from regroup_store.kinds.studies import timing_ref

    return timing_ref("cpu", inputs).removeprefix("cpu-")


def bad(store: Store) -> set[str]:
    return {f.path for f in verify_store(store) if f.level != "note"}


def noted(store: Store) -> dict[str, str]:
    return {f.path: f.what for f in verify_store(store) if f.level == "note"}


def means_the_same(key: str, before: bytes, after: bytes) -> bool:
    """JSON has spellings that do not count: white space, the case of \\u escapes."""
    try:
        return key.endswith(".json") and json.loads(before) == json.loads(after)
    except ValueError:
        return False


def test_a_whole_store_has_nothing_bad() -> None:
    assert bad(everything()) == set()


def test_a_byte_of_every_file_is_noticed() -> None:
    store, draw = everything(), random.Random(16)
    usual = noted(store)
    keys = [key for key in store.backend.keys("") if store.backend.read(key)]
    assert len(keys) > 30
    for key in keys:
        before = store.backend.read(key)
        after = bytearray(before)
        after[draw.randrange(len(after))] ^= 1 << draw.randrange(8)
        store.backend.replace(key, bytes(after))
        place = key.partition("/c/")[0] if key.startswith("banks/") else key
        named = place in bad(store) or key in noted(store).keys() - usual.keys()
        assert named or means_the_same(key, before, bytes(after)), (key, bytes(after))
        store.backend.replace(key, before)


NEVER_MISSED = ("progress.json", "run.json", "quarantine/", "timings/", "results.json")


def test_every_file_that_is_gone_is_noticed() -> None:
    """But for what may be gone: records of runs, of failures and of seconds, and results."""
    store = everything()
    for key in store.backend.keys(""):
        if any(word in key for word in NEVER_MISSED):
            continue
        before = store.backend.read(key)
        store.backend.delete(key)
        assert bad(store) or noted(store), key
        store.backend.replace(key, before)


Change = Callable[[dict[str, object]], dict[str, object]]


def changed(store: Store, ending: str, change: Change, resealed: bool = True) -> str:
    (key,) = [key for key in store.backend.keys("") if key.endswith(ending)]
    record = json.loads(store.backend.read(key))
    record.pop("checksum", None)
    data = change(record)
    store.backend.replace(key, seal(data) if resealed else json.dumps(data).encode())
    return key


@pytest.mark.parametrize(
    "change",
    [
        lambda record: {**record, "fill_value": 0},
        lambda record: {**record, "attributes": {"units": "none"}},
        lambda record: {**record, "data_type": "int64"},
        lambda record: {**record, "shape": [10, 5]},
        lambda record: {
            **record,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [5, 4]}},
        },
        lambda record: {
            **record,
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        },
    ],
)
def test_metadata_that_is_not_the_plans_is_damage(change: Change) -> None:
    store = memory_store()
    element = fill(make(store))
    element.finalise({})
    key = changed(store, "true_rank.zarr/zarr.json", change, resealed=False)
    assert bad(store) == {key}
    for each in plan_repairs(store, verify_store(store)):
        apply_repair(store, each)
    assert bad(store) == set()
    assert noted(store) == {}


def test_another_fill_value_of_floats_is_damage() -> None:
    """NaN and 0.0 read the same wherever every chunk is there, and not where one is gone."""
    store = memory_store()
    fill(make(store)).finalise({})
    key = changed(store, "conv-1/zarr.json", lambda r: {**r, "fill_value": 0.0}, resealed=False)
    assert bad(store) == {key}


HUGE = 10**18


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda m: {**m, "rows": HUGE}, "its rows are 1000000000000000000, not 1 to"),
        (lambda m: {**m, "rows": -1}, "its rows are -1"),
        (lambda m: {**m, "rows": 2**39, "block_rows": 1}, "more than 2097152 blocks"),
        (lambda m: {**m, "rows": 2**39, "block_rows": 2**39}, "its blocks have 549755813888 rows"),
        (lambda m: {**m, "block_rows": 0}, "a block plan needs positive sizes"),
        (lambda m: {**m, "arrays": "none"}, "its arrays are not readable"),
        (lambda m: {**m, "arrays": [{**m["arrays"][0], "shape": [10, HUGE]}]}, "cannot be"),
        (lambda m: {**m, "arrays": [{**m["arrays"][0], "shape": [10, 2**33]}]}, "would take"),
        (lambda m: {**m, "columns": [{"name": 3}]}, "its columns are not readable"),
        (lambda m: {**m, "recorded": []}, "what it records is not readable"),
    ],
)
def test_a_sealed_manifest_of_what_cannot_be_is_refused(change: Change, problem: str) -> None:
    """One that a stranger wrote: nothing of these sizes is allocated."""
    store = memory_store()
    fill(make(store)).finalise({})
    key = changed(store, "manifest.json", change)
    (finding,) = [f for f in verify_store(store) if f.level != "note"]
    assert (finding.path, problem in finding.problem) == (key, True), finding.problem
    (info,) = store.elements()
    assert info.problem == finding.problem
    with pytest.raises(DamagedError, match="is damaged: "):
        BlockElement.open(store, "features", "tiny")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: {**m, "part_rows": 0},
        lambda m: {**m, "rows": 10**12, "part_rows": 10**12},
        lambda m: {**m, "parts": m["parts"] * 3},
        lambda m: {**m, "rows": 8193},
        lambda m: {**m, "source_spec": None},
    ],
)
def test_a_sealed_manifest_of_an_index_that_cannot_be(change: Change) -> None:
    store = memory_store()
    write_index(store)
    key = changed(store, "manifest.json", change)
    assert bad(store) == {key}
    with pytest.raises(DamagedError):
        SampleIndex.open(store, "pets").rows()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: {**m, "counts": [-3, 10]},
        lambda m: {**m, "counts": [3, 4, 5]},
        lambda m: {**m, "checksums": m["checksums"][:1]},
        lambda m: {**m, "arrays": [{**a, "shape": [2, 2**20, 2**20]} for a in m["arrays"]]},
    ],
)
def test_a_sealed_manifest_of_a_bank_that_cannot_be(change: Change) -> None:
    store = memory_store()
    write_bank(store)
    key = changed(store, "manifest.json", change)
    assert bad(store) == {key}
    with pytest.raises(DamagedError):
        read_bank(store, "tiny")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_damage(number: str) -> None:
    store = everything()
    key = "studies/small/results.json"
    text = store.backend.read(key).decode().replace('"study": "small"', f'"study": {number}', 1)
    store.backend.replace(key, text.encode())
    assert key in bad(store)
    run = "runs/20260101T000000Z-run-00000000/run.json"
    store.backend.replace(run, f'{{"state": "done", "seconds": {number}}}'.encode())
    assert (run in bad(store)) is not number.startswith("1")


def test_a_plan_of_too_many_blocks_is_not_begun() -> None:
    store = memory_store()
    with pytest.raises(StoreUsageError, match=r"more than 2097152 blocks.*another --block-rows"):
        make(store, rows=2**22, block_rows=1)
    assert store.backend.keys("features") == []


def test_what_a_study_names_and_is_gone_is_named() -> None:
    store = everything()
    for key in store.backend.keys("banks"):
        store.backend.delete(key)
    (finding,) = [f for f in verify_store(store) if f.level != "note"]
    assert (finding.path, finding.what) == ("studies/small/results.json", "parent")
    assert "names banks/tiny-" in finding.problem
    (plan,) = plan_repairs(store, [finding])
    assert (plan.action, plan.removed) == ("rerun", ())
    for key in store.backend.keys("indexes"):
        store.backend.delete(key)
    assert [f.level for f in verify_store(store) if "names indexes/pets" in f.problem] == ["note"]


def test_damaged_results_stay_until_the_next_run_and_timings_go() -> None:
    """What the results name must not be removed by `gc` meanwhile."""
    store = everything()
    results = "studies/small/results.json"
    (timing,) = store.backend.keys("studies/small/timings")
    for key in (results, timing):
        data = store.backend.read(key)
        store.backend.replace(key, data.replace(b'"small"', b'"smalk"'))
    assert bad(store) == {results, timing}
    (plan,) = plan_repairs(store, verify_store(store))
    assert (plan.action, plan.removed) == ("rerun", (timing,))
    apply_repair(store, plan)
    assert bad(store) == {results}


def test_files_that_belong_to_nothing_are_notes() -> None:
    store = everything()
    (element,) = {key.split("/")[1] for key in store.backend.keys("features") if "/tiny-" in key}
    strays = [
        "notes.txt", "photos/a.png", "features/README", f"features/{element}/commits/00099.json",
        "studies/bad name/results.json", "studies/small/old.json", "runs/x/y/run.json",
        "banks/tiny/manifest.json",
    ]  # fmt: skip
    for key in strays:
        store.backend.replace(key, b"?")
    assert bad(store) == set()
    assert sorted(path for path, what in noted(store).items() if what == "stray") == sorted(strays)


def test_a_part_that_is_no_table_or_of_other_rows_is_damage() -> None:
    """Its checksum may hold all the same, where a stranger wrote both."""
    from regroup_store.format.fingerprint import checksum_bytes

    store = memory_store()
    element = fill(make(store))
    element.finalise({})
    folder = f"features/{element.ref}"
    for data in (b"no parquet", store.backend.read(f"{folder}/samples/part-00002.parquet")):
        store.backend.replace(f"{folder}/samples/part-00001.parquet", data)
        key = f"{folder}/commits/00001.json"
        record = unseal(store.backend.read(key), key)
        store.backend.replace(key, seal({**record, "table": checksum_bytes(data)}))
        assert bad(store) == {f"{folder}/samples/part-00001.parquet"}
    assert np.isfinite(element.read_array("true_rank.zarr", 1)).all()
