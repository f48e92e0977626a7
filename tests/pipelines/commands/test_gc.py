"""`regroup gc` as a user meets it: what it lists, when it asks, when it refuses."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from regroup_pipelines.steps.past_runs import past_runs, unfinished_refs
from regroup_store.errors import StoreError
from regroup_store.format.store import Store, open_store
from regroup_store.maintenance import removal
from tests.pipelines.conftest import Run
from tests.pipelines.small_study import ATTACK, write_adversarials, write_index, write_small_study
from tests.store.elements import snapshot


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a study, and an attack that it knows nothing of."""
    store = open_store(str(tmp_path / "store"), create=True)
    write_small_study(store)
    write_adversarials(store, write_index(store), {**ATTACK, "epsilon": 0.5}, "pets-big")
    return store


def run_file(store: Store, name: str, file: str, **record: Any) -> None:
    store.backend.replace(f"runs/{name}/{file}", json.dumps(record).encode())


def ago(**time: float) -> str:
    return (datetime.now(UTC) - timedelta(**time)).isoformat(timespec="seconds")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(text))


def big(store: Store) -> list[str]:
    return [e.ref for e in store.elements("adversarials") if e.name == "pets-big"]


def test_without_delete_nothing_changes(store: Store, run: Run) -> None:
    before = snapshot(store)
    done = run("gc", "--store", store.uri)
    assert done.status == 0
    assert "pets-big" in done.out
    assert "1 element (" in done.out
    assert "kB) that nothing refers to; 7 kept." in done.out
    assert "Nothing was removed: give --delete to remove." in done.out
    told = run("gc", "--store", store.uri, "--json").json
    (found,) = told["unreferenced"]
    assert (found["kind"], found["state"]) == ("adversarials", "whole")
    assert told["size_bytes"] == store.backend.size(f"adversarials/{found['ref']}")
    assert (len(told["kept"]), told["deleted"]) == (7, [])
    assert snapshot(store) == before
    nothing = run("gc", "--store", store.uri, "--keep", "pets-big", "--delete", "--yes")
    assert nothing.status == 0
    assert "0 elements" in nothing.out
    assert snapshot(store) == before


@pytest.mark.parametrize(("text", "left"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_it_asks_on_a_terminal(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch, text: str, left: int
) -> None:
    answer(monkeypatch, text)
    done = run("gc", "--store", store.uri, "--delete")
    assert done.status == 0
    assert "Remove 1 element (" in done.out
    assert done.out.strip().endswith("Nothing was removed." if left else "Removed: 1 element.")
    assert len(big(store)) == left
    assert run("verify", "--store", store.uri).status == 0


def test_the_end_of_input_is_no(store: Store, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "")
    done = run("gc", "--store", store.uri, "--delete")
    assert (done.status, done.err) == (0, "")
    assert done.out.strip().endswith("Nothing was removed.")
    assert len(big(store)) == 1


def test_a_run_that_starts_while_it_asks_is_waited_for(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(question: str) -> str:
        run_file(store, "20260101T000000Z-x-1", "progress.json", state="running", updated=ago())
        return "y"

    answer(monkeypatch, "")
    monkeypatch.setattr("builtins.input", slow)
    done = run("gc", "--store", store.uri, "--delete")
    assert done.status == 1
    assert "is in progress" in done.err
    assert len(big(store)) == 1


@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_nobody_to_ask(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch, extra: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("y\n") if extra else io.StringIO("y\n"))
    done = run("gc", "--store", store.uri, "--delete", *extra)
    assert done.status == 2
    assert "--yes" in done.err
    assert len(big(store)) == 1
    assert run("gc", "--store", store.uri, "--delete", "--yes", *extra).status == 0
    assert big(store) == []


def test_a_run_in_progress_is_not_disturbed(store: Store, run: Run) -> None:
    name = "20260101T000000Z-attack-0"
    run_file(store, name, "progress.json", state="running", updated=ago(minutes=59))
    listed = run("gc", "--store", store.uri)
    assert listed.status == 0
    assert f"The run {name} is in progress" in listed.out
    done = run("gc", "--store", store.uri, "--delete", "--yes")
    assert done.status == 1
    assert f"the run {name} is in progress: wait until it ends" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert len(big(store)) == 1
    for updated, state in ((ago(minutes=61), "running"), (ago(), "done")):
        run_file(store, name, "progress.json", state=state, updated=updated)
        assert "is in progress" not in run("gc", "--store", store.uri).out
    store.backend.replace(f"runs/{name}/progress.json", b"{half")
    assert run("gc", "--store", store.uri, "--delete", "--yes").status == 1
    assert len(big(store)) == 1


def test_what_a_stopped_run_made_is_kept(store: Store, run: Run) -> None:
    """Until it is gone on with to the end, or given up."""
    (ref,) = big(store)
    steps = [{"step": "attack", "ref": ref, "blocks": 1}]
    first = "20260101T000000Z-attack-0"
    run_file(store, first, "progress.json", state="running", updated=ago(days=2), steps_done=steps)
    kept = run("gc", "--store", store.uri)
    assert "0 elements" in kept.out
    assert "Kept only for unfinished work: 1 element" in kept.out
    assert "pets-big" in run("gc", "--store", store.uri, "--unfinished").out
    run_file(store, first, "run.json", state="interrupted", ended=ago(days=2), steps=steps)
    assert unfinished_refs(past_runs(store)) == {ref}
    later = [{"step": "attack", "ref": "other"}]
    run_file(store, "20260102T000000Z-attack-1", "run.json", state="done", steps=later)
    assert unfinished_refs(past_runs(store)) == {ref}, "another run went elsewhere"
    both = [*steps, *later]
    run_file(store, "20251231T000000Z-attack-1", "run.json", state="done", steps=both)
    assert unfinished_refs(past_runs(store)) == {ref}, "it was before"
    run_file(store, "20260103T000000Z-attack-1", "run.json", state="done", steps=both)
    assert unfinished_refs(past_runs(store)) == set()
    assert "pets-big" in run("gc", "--store", store.uri).out


def test_without_a_study_something_has_to_be_named(store: Store, run: Run) -> None:
    store.backend.delete("studies/small/results.json")
    before = snapshot(store)
    assert "8 elements" in run("gc", "--store", store.uri).out
    done = run("gc", "--store", store.uri, "--delete", "--yes")
    assert done.status == 2
    assert "name what to keep with --keep REF" in done.err
    assert snapshot(store) == before
    bad = run("gc", "--store", store.uri, "--delete", "--yes", "--keep", "pets-bg")
    assert bad.status == 2
    assert "regroup gc: --keep pets-bg: there is no element" in bad.err
    assert "did you mean pets-big" in bad.err
    two = run("gc", "--store", store.uri, "--delete", "--yes", "--keep", "x", "--keep", "pets-big")
    assert two.status == 2, "every --keep counts, not the last alone"
    assert snapshot(store) == before
    done = run("gc", "--store", store.uri, "--delete", "--yes", "--keep", "pets-big")
    assert done.status == 0
    assert {e.kind for e in store.elements()} == {"adversarials", "indexes"}


def test_what_cannot_be_read_stops_it(store: Store, run: Run) -> None:
    (ref,) = big(store)
    store.backend.replace(f"adversarials/{ref}/manifest.json", b"{}")
    listed = run("gc", "--store", store.uri)
    assert listed.status == 0
    assert f"Kept because unreadable: adversarials/{ref}" in listed.out
    done = run("gc", "--store", store.uri, "--delete", "--yes")
    assert done.status == 1
    assert f"the origin of adversarials/{ref} is unknown" in done.err
    store.backend.replace("studies/small/results.json", b"{}")
    done = run("gc", "--store", store.uri, "--delete", "--yes")
    assert done.status == 1
    assert "studies/small/results.json" in done.err


def test_a_store_that_fails_half_way_says_how_far_it_came(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = removal.remove

    def failing(store: Store, member: removal.Member) -> None:
        if member.location.kind == "features":
            raise StoreError("cannot write features")
        whole(store, member)

    monkeypatch.setattr("regroup_pipelines.commands.gc.remove", failing)
    keep = ("--keep", "pets-big", "--delete", "--yes", "--json")
    store.backend.delete("studies/small/results.json")
    done = run("gc", "--store", store.uri, *keep)
    assert done.status == 1
    assert "cannot write features; removed so far: " in done.err
    assert {folder.split("/")[0] for folder in done.json["deleted"]} <= {"votes", "banks"}
    monkeypatch.setattr("regroup_pipelines.commands.gc.remove", whole)
    assert run("gc", "--store", store.uri, *keep).status == 0
    assert {e.kind for e in store.elements()} == {"adversarials", "indexes"}
