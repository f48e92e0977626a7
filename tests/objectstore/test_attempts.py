"""Several attempts at one block: one commits, and nobody reads a mixture."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from threading import Barrier as ThreadBarrier

import numpy as np
import pytest

from regroup_store.backends.open import backend_for
from regroup_store.errors import DamagedError
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.maintenance.verify import verify_store
from tests.store.elements import FLOATS, INTS, fill, make, table, values

RACERS = 16
KEY = "features/x-0123456789abcdef/commits/00000.json"


def _race(
    variables: dict[str, str],
    uri: str,
    racer: int,
    barrier: Barrier,
    won: multiprocessing.SimpleQueue[int],
) -> None:
    # The server that forks them may have been started by an earlier test, in its environment.
    os.environ.update(variables)
    backend = backend_for(uri)
    backend.exists(KEY)  # connected before the start
    barrier.wait(120)
    if backend.create(KEY, b"%d" % racer):
        won.put(racer)


def test_of_sixteen_processes_one_commits(uri: str) -> None:
    fork = multiprocessing.get_context("forkserver")
    # Sixteen imports take longer than the race.
    fork.set_forkserver_preload(
        [__name__, "regroup_store.backends.object_store", "regroup_store.backends.s3"]
    )
    barrier, won = fork.Barrier(RACERS), fork.SimpleQueue()
    shared = (dict(os.environ), uri)
    racers = [
        fork.Process(target=_race, args=(*shared, racer, barrier, won)) for racer in range(RACERS)
    ]
    for process in racers:
        process.start()
    for process in racers:
        process.join(120)
        assert process.exitcode == 0
    winner = won.get()
    assert won.empty()
    assert backend_for(uri).read(KEY) == b"%d" % winner


def test_of_sixteen_clients_one_commits_every_block(uri: str) -> None:
    """All write the same bytes: it is not by them that the winner is known."""
    blocks = 4
    element = make(open_store(uri, create=True), rows=blocks, block_rows=1)
    barrier = ThreadBarrier(RACERS)

    def attempt(racer: int) -> list[bool]:
        own = BlockElement.open(open_store(uri), "features", element.ref)
        won = []
        for block in range(blocks):
            barrier.wait(60)
            won.append(own.write_block(block, values(own, block), table(own, block), {}))
        return won

    with ThreadPoolExecutor(RACERS) as pool:
        won = np.array(list(pool.map(attempt, range(RACERS))))
    assert won.sum(axis=0).tolist() == [1] * blocks
    assert list(verify_store(open_store(uri))) == []


def test_a_late_attempt_with_other_values_is_detected(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It found no commit record, was thought dead, and writes after another attempt committed."""
    store = open_store(uri, create=True)
    fill(make(store), 0, 2)
    late, prompt = (make(store) for _ in range(2))
    monkeypatch.setattr(late, "committed_among", lambda blocks: set())
    assert prompt.write_block(1, values(prompt, 1), table(prompt, 1), {})
    with pytest.raises(DamagedError, match="wrote different values at once"):
        late.write_block(1, values(late, 1, seed=1), table(late, 1, failed=(5,)), {})
    opened = BlockElement.open(store, "features", late.ref)
    for path in (FLOATS, INTS):
        with pytest.raises(DamagedError):
            opened.read_array(path, 1)
        np.testing.assert_array_equal(opened.read_array(path, 0), values(opened, 0)[path])
    with pytest.raises(DamagedError):
        opened.read_table(1)
    assert {f.block for f in verify_store(store) if f.level == "damaged"} == {1}


def test_a_reader_sees_the_winner_or_damage_while_a_late_attempt_writes(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(uri, create=True)
    element = fill(make(store))
    late = make(store)
    monkeypatch.setattr(late, "committed_among", lambda blocks: set())
    expected, seen = values(element, 1)[FLOATS], set()

    def read() -> str:
        try:
            found = BlockElement.open(store, "features", element.ref).read_array(FLOATS, 1)
        except DamagedError:
            return "damaged"
        np.testing.assert_array_equal(found, expected)
        return "whole"

    with ThreadPoolExecutor(1) as pool:
        seen.add(read())
        written = pool.submit(late.write_block, 1, values(late, 1, seed=1), table(late, 1), {})
        patience = time.monotonic() + 60
        while not written.done():
            assert time.monotonic() < patience
            seen.add(read())
        seen.add(read())
    with pytest.raises(DamagedError):
        written.result()
    assert seen == {"whole", "damaged"}


def test_a_late_attempt_with_the_same_values_changes_nothing(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(uri, create=True)
    element = fill(make(store))
    late = make(store)
    monkeypatch.setattr(late, "committed_among", lambda blocks: set())
    assert not late.write_block(1, values(late, 1), table(late, 1), {"seconds": 9})
    assert list(verify_store(store)) == []
    assert BlockElement.open(store, "features", element.ref).commit(1).report == {}
