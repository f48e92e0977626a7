"""`regroup inspect` and `regroup diff`: what an element is, comes from, and differs in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regroup_pipelines.commands.diff import compare_settings
from regroup_pipelines.commands.inspect import shortened
from regroup_store.format.fingerprint import canonical_json
from regroup_store.format.store import Store, open_store
from tests.pipelines.conftest import Run
from tests.pipelines.small_study import (
    ATTACK,
    write_adversarials,
    write_features,
    write_index,
    write_small_study,
    write_votes,
)
from tests.store.elements import fill, make


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"), create=True)
    write_small_study(store)
    return store


def words(text: str) -> str:
    """Text without the lines of a tree."""
    return " ".join(text.translate(str.maketrans("", "", "│├└─")).split())


def test_inspect_tells_what_is_known(store: Store, run: Run) -> None:
    done = run("inspect", "votes/pets-pgd", "--store", store.uri)
    assert done.status == 0
    told, (info,) = words(done.out), [e for e in store.elements("votes") if e.name == "pets-pgd"]
    for expected in (
        f"votes/{info.ref} kind: votes name: pets-pgd fingerprint: {info.fingerprint}",
        "rows: 4 in blocks of 2 blocks committed: 2 of 2 state: complete size: ",
        "scoring delta: 1e-20 rule: borda",
        "command: test ",
        "created: 20",
        "versions numpy: ",
    ):
        assert expected in told
    family = told[told.index("made from") :]
    names = ("features/pets-pgd", "adversarials/pets-pgd", "indexes/pets", "banks/pets-tiny")
    places = [family.index(name) for name in (*names, "features/pets-tiny")]
    assert places == sorted(places)


def test_inspect_as_json(store: Store, run: Run) -> None:
    (info,) = store.elements("adversarials")
    told = run("inspect", info.fingerprint[:6], "--store", store.uri, "--json", "--children").json
    assert told["manifest"]["inputs"]["attack"] == ATTACK
    assert (told["kind"], told["size_bytes"]) == ("adversarials", info.size_bytes)
    (index,) = told["parents"]
    assert (index["kind"], index["problem"], index["relatives"]) == ("indexes", None, [])
    (features,) = told["children"]
    assert (features["kind"], features["relatives"][0]["kind"]) == ("features", "votes")


def test_inspect_shows_children_and_what_is_gone(store: Store, run: Run) -> None:
    without = words(run("inspect", "indexes/pets", "--store", store.uri).out)
    assert "made from: nothing" in without
    assert "used by" not in without
    children = words(run("inspect", "indexes/pets", "--store", store.uri, "--children").out)
    made = children[children.index("used by") :]
    for name in ("features/pets-tiny", "banks/pets-tiny", "votes/pets-tiny", "votes/pets-pgd"):
        assert name in made
    (index,) = store.elements("indexes")
    store.backend.delete(f"indexes/{index.ref}/manifest.json")
    told = words(run("inspect", "adversarials/pets-pgd", "--store", store.uri).out)
    assert f"made from indexes/{index.fingerprint[:16]} (not in this store)" in told


def test_inspect_tells_gaps(store: Store, run: Run) -> None:
    element = fill(make(store), 0)
    element.quarantine(2, 3, "Traceback\nRuntimeError: no room [here]")
    told = words(run("inspect", "features/tiny", "--store", store.uri).out)
    assert "blocks committed: 1 of 3" in told
    assert "failed block 2" in told
    assert "RuntimeError: no room [here]" in told


@pytest.mark.parametrize(
    ("ref", "sentence"),
    [
        ("pets-tiny", "names 3 elements in the store"),
        ("pets-tini", "did you mean pets-tiny or "),
        ("featrues/pets-tiny", "'featrues' is not a kind of element: did you mean features?"),
        ("votes/pets", "did you mean "),
        ("ffff0000", "it holds "),
    ],
)
def test_a_ref_that_names_nothing_or_several(
    store: Store, run: Run, ref: str, sentence: str
) -> None:
    done = run("inspect", ref, "--store", store.uri)
    assert done.status == 2
    assert sentence in done.err
    assert len(done.err.strip().splitlines()) == 1
    if ref == "pets-tiny":
        for kind in ("features", "banks", "votes"):
            assert f"{kind}/pets-tiny-" in done.err


def test_long_lists_are_shortened() -> None:
    assert shortened(list(range(1000))) == "[0, 1, 2, ..., 999] (1000 items)"
    assert shortened([["conv", 3], None]) == "[[conv, 3], none]"


def test_diff_follows_what_elements_come_from(store: Store, run: Run) -> None:
    index = write_index(store)
    made = write_adversarials(store, index, {**ATTACK, "epsilon": 0.5, "restarts": 2}, "pets-big")
    attacked = write_features(
        store, "pets-big", {"adversarials": made.fingerprint}, [1, 0, -1, 0]
    )  # fmt: skip
    (bank,) = (e.ref for e in store.elements("banks"))
    scored = write_votes(store, attacked, bank, [1, 0, -1, 0], [True] * 4, delta=1e-3)
    done = run("diff", "votes/pets-pgd", scored.ref, "--store", store.uri)
    assert done.status == 0
    told = words(done.out)
    assert "scoring.delta: A 1e-20, B 0.001" in told
    assert (
        "features differs because source.adversarials differs because "
        "attack.epsilon: A 0.01568627450980392, B 0.5 attack.restarts: A not given, B 2" in told
    )
    assert "bank" not in told.split("features differs")[1]
    json = run("diff", "votes/pets-pgd", "pets-big", "--store", store.uri, "--json").json
    assert json["same"] is False
    flat = {tuple(d["path"]): (d.get("a"), d.get("b")) for d in json["differences"]}
    assert flat == {
        ("scoring.delta",): (1e-20, 0.001),
        ("features", "source.adversarials", "attack.epsilon"): (4 / 255, 0.5),
        ("features", "source.adversarials", "attack.restarts"): (None, 2),
    }
    (restarts,) = (d for d in json["differences"] if d["path"][-1] == "attack.restarts")
    assert "a" not in restarts


def test_diff_between_stores(store: Store, run: Run, tmp_path: Path) -> None:
    other = open_store(str(tmp_path / "other"), create=True)
    write_small_study(other)
    args = ("diff", "banks/pets-tiny", "pets-tiny", "--store", store.uri, "--store-b", other.uri)
    same = run(*args)
    assert same.status == 0
    assert same.out.startswith("Nothing differs: both have the fingerprint ")
    assert run(*args, "--json").json["same"] is True
    index = write_index(other, "others", ("a", "b"))
    mine = write_features(other, "mine", {"index": index.fingerprint}, [0, 0, -1, 1], "bfloat16")
    args = ("diff", "features/pets-tiny", "mine", "--store", store.uri, "--store-b", other.uri)
    told = words(run(*args).out)
    assert "dtype: A float32, B bfloat16" in told
    assert "source.index differs because class_names[0]: A cat, B a" in told
    other.backend.delete(f"indexes/{index.ref}/manifest.json")
    told = words(run(*args).out)
    assert f"indexes {index.fingerprint[:16]} is not in its store" in told
    assert mine.ref in told


def test_diff_of_two_kinds_is_refused(store: Store, run: Run) -> None:
    done = run("diff", "votes/pets-pgd", "features/pets-pgd", "--store", store.uri)
    assert done.status == 2
    assert "only elements of one kind can be compared" in done.err
    assert run("diff", "pets-pgd", "pets-pgd", "--store", store.uri).status == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner),
    max_leaves=8,
)


@given(JSON, JSON)
def test_compare_finds_a_difference_exactly_where_there_is_one(a: Any, b: Any) -> None:
    assert bool([*compare_settings(a, b)]) == (canonical_json(a) != canonical_json(b))
    there, back = [*compare_settings(a, b)], [*compare_settings(b, a)]
    assert {(d.key, id(d.a)) for d in there} == {(d.key, id(d.b)) for d in back}


def test_compare_names_the_place() -> None:
    a = {"taps": [["conv", 3], ["fc", 2]], "model": {"name": "x"}, "n": 1, "many": [*range(9)]}
    b = {
        "taps": [["conv", 4], ["fc", 2]],
        "model": {"name": "y"},
        "n": 1.0,
        "many": [*range(1, 10)],
    }
    found = {d.key: (d.a, d.b) for d in compare_settings(a, b)}
    assert found == {
        "taps[0][1]": (3, 4),
        "model.name": ("x", "y"),
        "n": (1, 1.0),
        "many": ([*range(9)], [*range(1, 10)]),
    }
