"""A server that fails for a while is retried; a permanent failure is reported in one sentence."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from regroup_store.backends.base import Backend
from regroup_store.backends.open import backend_for
from regroup_store.backends.s3 import RETRY_VARIABLE
from regroup_store.errors import DamagedError, StoreError
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.maintenance.verify import verify_store
from tests.objectstore.conftest import ROOT
from tests.objectstore.proxy import Fault, Proxy
from tests.store.elements import FLOATS, fill, make, table, values

FAULTS: list[Fault] = ["busy", "dropped"]


@pytest.fixture
def backend(proxy: Proxy, uri: str) -> Backend:
    return backend_for(uri)


def _use(backend: Backend) -> None:
    """Every operation that the store does, each once."""
    assert backend.create("a/new", b"1")
    backend.replace("a/other", b"22")
    assert backend.exists("a/new")
    assert not backend.exists("a/none")
    assert backend.read("a/other") == b"22"
    assert backend.keys("a") == ["a/new", "a/other"]
    assert backend.children() == ["a"]
    assert backend.size("a") == 3
    backend.delete("a/other")
    assert backend.children("a") == ["new"]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_operation_is_tried_again(backend: Backend, proxy: Proxy, fault: Fault) -> None:
    failed: dict[tuple[str, str], int] = {}

    def first_two(method: str, path: str) -> Fault | None:
        failed[method, path] = failed.get((method, path), 0) + 1
        return fault if failed[method, path] <= 2 else None

    proxy.faults = first_two
    _use(backend)
    assert {method for method, _ in failed} >= {"GET", "HEAD", "PUT"}
    assert all(times >= 3 for times in failed.values()), failed


@pytest.mark.parametrize("fault", FAULTS)
def test_blocks_are_written_and_read_through_a_server_that_often_fails(
    proxy: Proxy, uri: str, fault: Fault
) -> None:
    random = np.random.default_rng(0)
    proxy.faults = lambda method, path: fault if random.random() < 0.2 else None
    element = fill(make(open_store(uri, create=True)))
    opened = BlockElement.open(open_store(uri), "features", element.ref)
    for block in range(3):
        expected = values(element, block)[FLOATS]
        np.testing.assert_array_equal(opened.read_array(FLOATS, block), expected)
    assert opened.samples().num_rows == 10
    assert proxy.failed() > 5


@pytest.mark.parametrize("fault", FAULTS)
def test_for_good_every_operation_ends_in_one_sentence(
    backend: Backend, proxy: Proxy, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RETRY_VARIABLE, "0.3")
    backend = backend_for(backend.uri)
    proxy.fail(fault)
    for call in (
        lambda: backend.create("k", b"1"),
        lambda: backend.replace("k", b"1"),
        lambda: backend.read("k"),
        lambda: backend.exists("k"),
        lambda: backend.keys(),
        lambda: backend.children(),
        lambda: backend.delete("k"),
    ):
        started = time.monotonic()
        with pytest.raises(StoreError, match=f"the store {backend.uri} failed") as caught:
            call()
        assert caught.value.exit_status == 1
        assert not isinstance(caught.value, DamagedError)
        assert "\n" not in str(caught.value)
        assert time.monotonic() - started < 10


def test_pauses_grow(backend: Backend, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """In three seconds a client that waits longer each time asks a handful of times."""
    monkeypatch.setenv(RETRY_VARIABLE, "3")
    proxy.fail("busy")
    with pytest.raises(StoreError, match="503"):
        backend_for(backend.uri).read("k")
    assert 3 <= len(proxy.seen) <= 20


def test_a_create_whose_answer_was_lost_has_won(backend: Backend, proxy: Proxy) -> None:
    proxy.fail("lost", times=1, method="PUT")
    assert backend.create("commits/00000.json", b"mine")
    assert proxy.failed() == 1
    assert backend.read("commits/00000.json") == b"mine"


def test_a_create_that_was_done_and_answered_with_503_has_won(
    backend: Backend, proxy: Proxy
) -> None:
    """The client retries by itself then, and finds its own object."""
    asked: list[str] = []

    def twice(method: str, path: str) -> Fault | None:
        asked.append(method)
        return "lost_busy" if asked.count("PUT") == 1 and method == "PUT" else None

    proxy.faults = twice
    assert backend.create("k", b"mine")
    assert asked.count("PUT") == 2


@pytest.mark.parametrize("there", [b"mine", b"another's"])
def test_a_create_whose_answer_was_lost_after_another_won_has_lost(
    backend: Backend, proxy: Proxy, there: bytes
) -> None:
    """Equal bytes prove nothing: only one of two calls may learn that it created them."""
    assert backend.create("k", there)
    proxy.fail("lost", times=1, method="PUT")
    assert not backend.create("k", b"mine")
    assert backend.read("k") == there


def test_a_create_that_never_arrived_is_not_taken_for_done(backend: Backend, proxy: Proxy) -> None:
    proxy.fail("dropped", times=2, method="PUT")
    assert backend.create("k", b"mine")
    assert [fault for method, _, fault in proxy.seen if method == "PUT"] == [
        "dropped",
        "dropped",
        None,
    ]


def test_a_block_whose_commit_was_answered_by_nobody_is_committed_once(
    proxy: Proxy, uri: str
) -> None:
    element = make(open_store(uri, create=True))
    proxy.fail("lost", times=1, method="PUT", path="/commits/")
    assert element.write_block(1, values(element, 1), table(element, 1), {"seconds": 1.5})
    assert proxy.failed() == 1
    assert element.committed() == {1}
    assert element.commit(1).report == {"seconds": 1.5}
    assert not element.write_block(1, values(element, 1), table(element, 1), {"seconds": 2})


def test_a_server_that_fails_is_not_damage(
    proxy: Proxy, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise `regroup repair` would remove intact values."""
    monkeypatch.setenv(RETRY_VARIABLE, "0.2")
    store = open_store(uri, create=True)
    element = fill(make(store))
    proxy.fail("busy", path=f"{FLOATS}/c/1/")
    with pytest.raises(StoreError, match="503") as caught:
        BlockElement.open(store, "features", element.ref).read_array(FLOATS, 1)
    assert not isinstance(caught.value, DamagedError)
    findings = [f for f in verify_store(store) if f.level != "note"]
    assert [(f.level, f.block) for f in findings] == [("unreadable", 1)]
    proxy.fail("busy", path=f"{FLOATS}/zarr.json")
    assert {f.level for f in verify_store(store)} == {"unreadable"}


def test_a_command_ends_with_status_1_and_one_sentence(
    proxy: Proxy, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(uri, create=True)
    monkeypatch.setenv(RETRY_VARIABLE, "0.5")
    proxy.fail("dropped")
    done = subprocess.run(
        [sys.executable, "-m", "regroup_pipelines.cli", "ls", "--store", uri],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"regroup ls: the store {uri} failed looking for store.json: ")
