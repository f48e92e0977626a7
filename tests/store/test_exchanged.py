"""Records of one element in the place of another's, as a mixed-up restore leaves them."""

from collections.abc import Callable, Mapping

import pytest

from regroup_store.errors import DamagedError
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import seal, unseal
from regroup_store.format.store import Store
from regroup_store.kinds.studies import write_study, write_timing
from regroup_store.maintenance.verify import verify_store
from tests.store.elements import INPUTS, fill, make, memory_store

OTHER = {**INPUTS, "index": "b" * 64}


def two(store: Store) -> tuple[BlockElement, BlockElement]:
    """Two elements of one shape, which nothing but their fingerprints tells apart."""
    pair = fill(make(store, name="one")), fill(make(store, name="two", inputs=OTHER))
    for element in pair:
        element.finalise({"count": 10})
    return pair


def exchange(store: Store, pair: tuple[BlockElement, BlockElement], *prefixes: str) -> None:
    one, two = (f"features/{element.ref}/" for element in pair)
    for prefix in prefixes:
        for key in store.backend.keys(f"{one}{prefix}".rstrip("/")) or [f"{one}{prefix}"]:
            other = two + key.removeprefix(one)
            mine, theirs = store.backend.read(key), store.backend.read(other)
            store.backend.replace(key, theirs)
            store.backend.replace(other, mine)


def bad(store: Store) -> list[tuple[str, str]]:
    return [(f.level, f.path) for f in verify_store(store) if f.level != "note"]


def notes(store: Store) -> list[str]:
    return [f.problem for f in verify_store(store) if f.what == "unnamed"]


def without_element(store: Store) -> None:
    """Make every record one of before records stated their element."""
    for key in store.backend.keys(""):
        if "/commits/" in key or key.endswith("summary.json"):
            record = unseal(store.backend.read(key), key)
            store.backend.replace(key, seal({k: v for k, v in record.items() if k != "element"}))


def test_exchanged_summaries_are_named_and_not_read() -> None:
    store = memory_store()
    pair = two(store)
    exchange(store, pair, "summary.json")
    assert bad(store) == [("damaged", f"features/{e.ref}/summary.json") for e in pair]
    with pytest.raises(DamagedError, match=r"is the record of another element, .*: it was copied"):
        BlockElement.open(store, "features", "one").summary()


def test_blocks_exchanged_whole_are_named_and_not_read() -> None:
    store = memory_store()
    pair = two(store)
    exchange(store, pair, "commits", "samples", "accumulators.zarr", "true_rank.zarr")
    assert bad(store) == [
        ("damaged", f"features/{e.ref}/commits/{block:05d}.json")
        for e in pair
        for block in range(3)
    ]
    with pytest.raises(DamagedError, match="another element"):
        BlockElement.open(store, "features", "two").read_table(0)


def test_one_commit_of_another_element_is_named() -> None:
    store = memory_store()
    pair = two(store)
    exchange(store, pair, "commits/00001.json")
    assert bad(store) == [("damaged", f"features/{e.ref}/commits/00001.json") for e in pair]


def test_a_renamed_folder_is_named() -> None:
    """Tables call an element by its folder's name."""
    store = memory_store()
    (one, _) = two(store)
    for key in store.backend.keys(f"features/{one.ref}"):
        store.backend.replace(key.replace("/one-", "/two-"), store.backend.read(key))
        store.backend.delete(key)
    (found,) = bad(store)
    assert found[1].startswith("features/two-")


def test_records_of_before_are_read_and_counted_once() -> None:
    store = memory_store()
    pair = two(store)
    assert notes(store) == []
    without_element(store)
    assert bad(store) == []
    (told,) = notes(store)
    assert told.startswith("2 elements have commits or summaries without their fingerprint")
    assert [BlockElement.open(store, "features", e.name).summary() for e in pair] == [
        {"count": 10}
    ] * 2


@pytest.mark.parametrize(
    "change",
    [
        lambda record: {**record, "failed": "none"},
        lambda record: {**record, "arrays": ["a"]},
        lambda record: {**record, "more": 1},
        lambda record: {k: v for k, v in record.items() if k != "table"},
    ],
)
def test_a_sealed_record_that_is_no_commit_is_damage(
    change: Callable[[Mapping[str, object]], Mapping[str, object]],
) -> None:
    store = memory_store()
    element = fill(make(store))
    key = f"features/{element.ref}/commits/00001.json"
    store.backend.replace(key, seal(change(unseal(store.backend.read(key), key))))
    assert bad(store) == [("damaged", key)]


def test_results_and_timings_of_another_study_are_named() -> None:
    store = memory_store()
    for name, inputs in (("one", {"k": 1}), ("two", {"k": 2})):
        write_study(store, name, {"accuracy": 0.5, "study": name})
        write_timing(store, name, "cpu-" + "0" * 16, inputs, {"seconds": 1.0})
    assert {path for _, path in bad(store)} == {
        f"studies/{name}/timings/cpu-0000000000000000.json" for name in ("one", "two")
    }, "their names are not those of what was timed"
    results = [f"studies/{name}/results.json" for name in ("one", "two")]
    one, other = (store.backend.read(key) for key in results)
    store.backend.replace(results[0], other)
    store.backend.replace(results[1], one)
    assert {path for _, path in bad(store)} >= set(results)
