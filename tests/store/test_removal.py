"""What nothing refers to is removed, children first; a killed removal leaves no half element."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from regroup_store.backends.base import Backend
from regroup_store.errors import GapError, StoreError
from regroup_store.format.element import BlockElement
from regroup_store.format.manifests import BLOCK_KINDS, KINDS, Location, folders
from regroup_store.format.store import Store
from regroup_store.maintenance.removal import REMOVAL, RemovalPlan, plan_removal, remove
from regroup_store.maintenance.verify import verify_store
from tests.data.make_store import write_all
from tests.pipelines.small_study import (
    ATTACK,
    write_adversarials,
    write_features,
    write_index,
    write_small_study,
    write_votes,
)
from tests.store.elements import copy_into, fill, make, snapshot, written_on_each


@dataclass
class Dying:
    """A backend whose process is killed after `left` deletions: each later one fails."""

    below: Backend
    left: int
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)

    def delete(self, key: str) -> None:
        with self._lock:
            if self.left <= 0:
                raise StoreError(f"killed before {key}")
            self.left -= 1
            self.below.delete(key)


def dying(store: Store, left: int) -> Store:
    return Store(cast("Backend", Dying(store.backend, left)))


def gone(plan: RemovalPlan) -> set[str]:
    return {member.location.folder for member in plan.unreferenced}


def everything(store: Store) -> set[str]:
    return {each.folder for kind in KINDS for each in folders(store.backend, kind)}


def apply(store: Store, plan: RemovalPlan) -> None:
    for member in plan.unreferenced:
        remove(store, member)


def test_a_study_refers_to_its_elements_and_all_they_come_from(any_store: Store) -> None:
    write_small_study(any_store)
    before = everything(any_store)
    assert gone(plan_removal(any_store)) == set()
    # Another attack that no study refers to, its features, and an index.
    index = write_index(any_store)
    made = write_adversarials(any_store, index, {**ATTACK, "epsilon": 0.5}, "pets-big")
    of_it = write_features(
        any_store, "pets-big", {"adversarials": made.fingerprint}, [1, 0, -1, 0]
    )  # fmt: skip
    other = write_index(any_store, "others", ("a", "b"))
    plan = plan_removal(any_store)
    folders = [member.location.folder for member in plan.unreferenced]
    assert set(folders) == everything(any_store) - before
    assert set(folders) == {
        f"adversarials/{made.ref}", f"features/{of_it.ref}", f"indexes/{other.ref}"
    }  # fmt: skip
    assert folders.index(f"features/{of_it.ref}") < folders.index(f"adversarials/{made.ref}")
    kept = snapshot_of(any_store, before)
    apply(any_store, plan)
    assert everything(any_store) == before
    assert snapshot_of(any_store, before) == kept
    assert [f for f in verify_store(any_store) if f.level != "note"] == []


def snapshot_of(store: Store, folders: set[str]) -> dict[str, bytes]:
    return {
        key: data
        for key, data in snapshot(store).items()
        if "/".join(key.split("/")[:2]) in folders or key.startswith("studies/")
    }


def test_what_is_named_is_kept_with_what_it_comes_from(any_store: Store) -> None:
    index = write_index(any_store)
    clean = write_features(any_store, "pets", {"index": index.fingerprint}, [0, 0, -1, 1])
    made = write_adversarials(any_store, index, ATTACK)
    keep = [Location("features", clean.ref)]
    plan = plan_removal(any_store, keep)
    assert gone(plan) == {f"adversarials/{made.ref}"}
    assert {m.location.folder for m in plan.kept} == {
        f"indexes/{index.ref}", f"features/{clean.ref}"
    }  # fmt: skip
    assert gone(plan_removal(any_store)) == everything(any_store)


def test_an_index_keeps_what_spares_reading_its_images(any_store: Store) -> None:
    write_all_into(any_store)
    (index,) = folders(any_store.backend, "indexes")
    plan = plan_removal(any_store, [index])
    assert {m.location.kind for m in plan.kept} == {"indexes", "listings", "digests"}
    order = [m.location.kind for m in plan_removal(any_store).unreferenced]
    assert order.index("votes") < order.index("banks") < order.index("features")
    assert order.index("digests") < order.index("listings")


def write_all_into(store: Store) -> None:
    """One element of every kind, as the committed stores of older versions hold them."""
    import tempfile
    from pathlib import Path

    from regroup_store.format.store import open_store

    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder) / "s")
        for key, data in snapshot(open_store(str(Path(folder) / "s"))).items():
            store.backend.replace(key, data)


def test_unfinished_work_is_kept_unless_it_is_given_up(any_store: Store) -> None:
    index = write_index(any_store)
    element = fill(make(any_store, inputs={"source": {"index": index.fingerprint}}), 0)
    place = f"features/{element.ref}"
    plan = plan_removal(any_store)
    assert gone(plan) == set()
    assert {m.location.folder for m in plan.unfinished} == {place, f"indexes/{index.ref}"}
    assert gone(plan_removal(any_store, unfinished=True)) == everything(any_store)
    fill(element, 1, 2).finalise({})
    assert gone(plan_removal(any_store)) == everything(any_store)
    kept = plan_removal(any_store, unfinished_refs={element.ref})
    assert gone(kept) == set()


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_manifest_that_cannot_be_read_stays(any_store: Store, unfinished: bool) -> None:
    element = fill(make(any_store), 0, 1, 2)
    element.finalise({})
    key = f"features/{element.ref}/manifest.json"
    any_store.backend.replace(key, b"{}")
    plan = plan_removal(any_store, unfinished=unfinished)
    assert gone(plan) == set()
    assert [m.location.ref for m in plan.unknown] == [element.ref]
    any_store.backend.delete(key)
    plan = plan_removal(any_store, unfinished=unfinished)
    assert gone(plan) == set()
    assert "manifest is missing, but blocks are committed" in str(plan.unknown[0].problem)


def readable(store: Store) -> None:
    """Check that all a reader finds is complete, or refused, and that nothing is damaged."""
    bad = [finding for finding in verify_store(store) if finding.level != "note"]
    assert bad == []
    for info in store.elements():
        if info.kind in BLOCK_KINDS:
            element = BlockElement.open(store, info.kind, info.ref)
            if info.finalised:
                assert element.samples().num_rows == info.rows
            if element.missing():
                assert not info.finalised
                with pytest.raises(GapError):
                    element.samples()


@pytest.fixture(scope="module")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict[str, bytes]]:
    return written_on_each(write_small_study, tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize("left", range(1, 88, 5))
def test_a_killed_removal_leaves_no_half_and_is_gone_on_with(
    any_store: Store, left: int, small_study: dict[bool, dict[str, bytes]]
) -> None:
    copy_into(any_store, small_study)
    any_store.backend.delete("studies/small/results.json")
    plan = plan_removal(any_store)
    total = len(everything(any_store))
    assert len(plan.unreferenced) == total == 7
    with pytest.raises(StoreError, match="killed before"):
        apply(dying(any_store, left), plan)
    readable(any_store)
    again = plan_removal(any_store)
    assert gone(again) == everything(any_store)
    apply(any_store, again)
    assert everything(any_store) == set()
    assert [key for key in snapshot(any_store) if "/" in key] == []


def test_the_number_of_kills_covers_every_element(
    small_study: dict[bool, dict[str, bytes]],
) -> None:
    """The parameters above reach into the last element."""
    for written in small_study.values():
        keys = [key for key in written if key.partition("/")[0] in KINDS]
        assert 86 < len(keys) <= 100


def test_a_job_that_goes_on_after_a_killed_removal_makes_it_whole(store: Store) -> None:
    """Killed after the commits: the blocks are computed again, and then nothing is half removed."""
    element = fill(make(store), 0, 1, 2)
    element.finalise({})
    (member,) = plan_removal(store).unreferenced
    with pytest.raises(StoreError):
        remove(dying(store, 4), member)
    assert make(store).missing() == [0, 1, 2]
    (member,) = plan_removal(store).unreferenced
    assert member.state == "half-removed"
    fill(make(store), 0, 1, 2).finalise({})
    (member,) = plan_removal(store).unreferenced
    assert member.state == "whole"
    assert store.backend.exists(member.location.key(REMOVAL))
    assert [f for f in verify_store(store) if f.level != "note"] == []


def test_empty_folders_and_partial_files_go_too(store: Store) -> None:
    element = fill(make(store), 0, 1, 2)
    element.finalise({})
    root = store.backend.root  # type: ignore[attr-defined]
    folder = root / "features" / element.ref
    (folder / "samples" / ".part.1234.partial").write_text("half")
    (folder / "empty" / "deeper").mkdir(parents=True)
    apply(store, plan_removal(store))
    assert not folder.exists()
    assert (root / "features").exists()


def test_a_study_is_referred_to_by_whatever_names_it(any_store: Store) -> None:
    """Refs and full fingerprints count wherever in the results they are."""
    from regroup_store.kinds.studies import write_study

    index = write_index(any_store)
    clean = write_features(any_store, "pets", {"index": index.fingerprint}, [0, 0, -1, 1])
    other = write_features(any_store, "pets", {"index": index.fingerprint}, [0] * 4, "bfloat16")
    write_study(any_store, "s", {"tables": [{"deep": [{"features": clean.fingerprint}]}]})
    assert gone(plan_removal(any_store)) == {f"features/{other.ref}"}
    write_study(any_store, "t", {"x": other.ref})
    assert gone(plan_removal(any_store)) == set()


def test_votes_keep_their_bank(any_store: Store) -> None:
    write_small_study(any_store)
    bank = folders(any_store.backend, "banks")[0]
    clean = BlockElement.open(any_store, "features", "pets-tiny")
    scored = write_votes(any_store, clean, bank.ref, [0, 0, -1, 1], [None] * 4, delta=1e-3)
    any_store.backend.delete("studies/small/results.json")
    plan = plan_removal(any_store, [Location("votes", scored.ref)])
    assert {m.location.kind for m in plan.kept} == {"votes", "banks", "features", "indexes"}
