"""Results of studies, kept by name in a store on each backend."""

from __future__ import annotations

import pytest

from regroup_store.errors import DamagedError, StoreUsageError
from regroup_store.format.store import Store
from regroup_store.kinds.studies import (
    read_study,
    read_timing,
    study_names,
    timing_ref,
    write_study,
    write_timing,
)


def test_the_last_results_are_kept(any_store: Store) -> None:
    assert study_names(any_store) == []
    write_study(any_store, "one", {"accuracy": [0.5, None]})
    write_study(any_store, "another", {})
    write_study(any_store, "one", {"accuracy": [0.625, None]})
    assert study_names(any_store) == ["another", "one"]
    assert read_study(any_store, "one") == {"accuracy": [0.625, None]}


def test_a_study_that_is_not_there_is_told_with_those_that_are(any_store: Store) -> None:
    with pytest.raises(StoreUsageError, match="none: run one with `regroup run`"):
        read_study(any_store, "one")
    write_study(any_store, "other", {})
    with pytest.raises(StoreUsageError, match=r"no study 'one': it has other"):
        read_study(any_store, "one")


@pytest.mark.parametrize("name", ["../one", "", "a/b", ".", "-x"])
def test_a_name_is_no_path(any_store: Store, name: str) -> None:
    with pytest.raises(StoreUsageError, match="names no study"):
        write_study(any_store, name, {})
    with pytest.raises(StoreUsageError, match="names no study"):
        read_study(any_store, name)


def test_a_changed_file_is_damage(any_store: Store) -> None:
    write_study(any_store, "one", {"k": 5})
    key = "studies/one/results.json"
    data = any_store.backend.read(key)
    any_store.backend.replace(key, data.replace(b'"k": 5', b'"k": 6'))
    with pytest.raises(DamagedError, match=r"studies/one/results\.json"):
        read_study(any_store, "one")
    any_store.backend.replace("studies/two/results.json", data)
    with pytest.raises(DamagedError, match="does not hold the results of two"):
        read_study(any_store, "two")


def test_a_timing_is_kept_once_and_is_of_what_was_asked(any_store: Store) -> None:
    asked: dict[str, object] = {"k": 5, "device": "cpu"}
    ref = timing_ref("preactivation-cpu", asked)
    assert timing_ref("preactivation-cpu", {"k": 6, "device": "cpu"}) != ref
    assert read_timing(any_store, "one", ref, asked) is None
    assert write_timing(any_store, "one", ref, asked, {"seconds": 0.5})
    assert not write_timing(any_store, "one", ref, asked, {"seconds": 0.25})
    assert read_timing(any_store, "one", ref, asked) == {"seconds": 0.5}
    assert read_timing(any_store, "two", ref, asked) is None
    assert study_names(any_store) == []
    with pytest.raises(DamagedError, match="a timing of something else"):
        read_timing(any_store, "one", ref, {"k": 6, "device": "cpu"})
    key = f"studies/one/timings/{ref}.json"
    any_store.backend.replace(key, any_store.backend.read(key).replace(b"0.5", b"0.4"))
    with pytest.raises(DamagedError, match="its own checksum"):
        read_timing(any_store, "one", ref, asked)
    with pytest.raises(StoreUsageError, match="names no timing"):
        read_timing(any_store, "one", "../results", asked)
