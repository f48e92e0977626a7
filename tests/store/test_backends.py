"""Both backends: atomic create-only writes, keys that stay inside, errors in one sentence."""

import errno
import multiprocessing
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regroup_store.backends import local
from regroup_store.backends.local import LocalBackend
from regroup_store.backends.object_store import ObjectBackend
from regroup_store.backends.open import backend_for
from regroup_store.errors import DamagedError, StoreError, StoreUsageError
from regroup_store.format.store import Store, open_store

RACERS = 16
# Each process that is started below is forked off one that has imported this module.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload([__name__])


def test_create_read_replace_list_delete(any_store: Store) -> None:
    backend = any_store.backend
    assert backend.create("a/b/c.json", b"1")
    assert not backend.create("a/b/c.json", b"2")
    assert backend.read("a/b/c.json") == b"1"
    backend.replace("a/b/c.json", b"345")
    backend.create("a/d", b"")
    assert backend.read("a/b/c.json") == b"345"
    assert backend.keys("a") == ["a/b/c.json", "a/d"]
    assert backend.children("a") == ["b", "d"]
    assert backend.children("nothing") == backend.keys("nothing") == []
    assert backend.size("a") == 3
    assert backend.exists("a/d")
    assert not backend.exists("a/e")
    backend.delete("a/d")
    backend.delete("a/d")
    assert not backend.exists("a/d")
    with pytest.raises(FileNotFoundError):
        backend.read("a/d")


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/./b", "a\\b", "a\0"]
)
def test_keys_that_leave_the_root_are_refused(any_store: Store, key: str) -> None:
    backend = any_store.backend
    for call in (backend.read, backend.exists, backend.delete, backend.zarr_store):
        with pytest.raises(DamagedError, match="stay below its root"):
            call(key)
    with pytest.raises(DamagedError):
        backend.create(key, b"")
    with pytest.raises(DamagedError):
        backend.replace(key, b"")


def test_of_sixteen_threads_one_creates(any_store: Store) -> None:
    barrier = threading.Barrier(RACERS)

    def race(racer: int) -> bool:
        barrier.wait()
        return any_store.backend.create("commits/00000.json", b"%d" % racer * 1000)

    with ThreadPoolExecutor(RACERS) as pool:
        won = list(pool.map(race, range(RACERS)))
    assert won.count(True) == 1
    assert any_store.backend.read("commits/00000.json") == b"%d" % won.index(True) * 1000


def _race(root: str, racer: int, start: float, winners: str) -> None:
    backend = LocalBackend(Path(root))
    time.sleep(max(0.0, start - time.time()))
    if backend.create("commits/00000.json", b"%d" % racer):
        (Path(winners) / str(racer)).touch()


def test_of_sixteen_processes_one_creates(tmp_path: Path) -> None:
    root, winners = tmp_path / "root", tmp_path / "winners"
    root.mkdir()
    winners.mkdir()
    start = time.time() + 1.5
    racers = [
        FORKED.Process(target=_race, args=(str(root), racer, start, str(winners)))
        for racer in range(RACERS)
    ]
    for process in racers:
        process.start()
    for process in racers:
        process.join(60)
        assert process.exitcode == 0
    (winner,) = winners.iterdir()
    (record,) = (root / "commits").iterdir()
    assert (record.name, record.read_text()) == ("00000.json", winner.name)


def test_a_lock_excludes_the_same_slot_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "LOCK_PATIENCE_S", 0.1)
    backend = store.backend
    with backend.lock("lock", 3):
        with backend.lock("lock", 4):
            pass
        with pytest.raises(StoreError, match="has been writing block 3"), backend.lock("lock", 3):
            pass
    with backend.lock("lock", 3):
        pass


def _hold(root: str, held: str) -> None:
    with LocalBackend(Path(root)).lock("lock", 0):
        Path(held).touch()
        time.sleep(60)


def test_a_killed_holder_frees_its_lock(store: Store, tmp_path: Path) -> None:
    held = tmp_path / "held"
    process = FORKED.Process(target=_hold, args=(store.uri, str(held)))
    process.start()
    while not held.exists():
        time.sleep(0.01)
    process.kill()
    with store.backend.lock("lock", 0):
        pass
    process.join(10)


@pytest.mark.parametrize("call", ["open", "link", "replace", "fsync"])
@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        (errno.EROFS, 2, "read-only"),
        (errno.EACCES, 2, "read-only"),
        (errno.ENOSPC, 1, "no space left"),
        (errno.EDQUOT, 1, "no space left"),
        (errno.EIO, 1, "Input/output error"),
    ],
)
def test_failed_writes_are_one_sentence_and_leave_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, call: str, code: int, status: int, words: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    before = store.backend.keys()
    monkeypatch.setattr(os, call, fail)
    write = store.backend.replace if call == "replace" else store.backend.create
    with pytest.raises(StoreError, match=words) as caught:
        write("x.json", b"data")
    assert caught.value.exit_status == status
    assert store.uri in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert store.backend.keys() == before
    left = [path.name for path in Path(store.uri).iterdir()]
    assert left == before  # No partial file either.


def test_a_store_that_vanishes_is_said_and_not_made_again(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "s"), create=True)
    (tmp_path / "s" / "store.json").unlink()
    (tmp_path / "s").rmdir()
    with pytest.raises(StoreError, match="has vanished"):
        store.backend.create("features/x/manifest.json", b"")
    assert not (tmp_path / "s").exists()


def test_a_folder_that_cannot_be_made_is_a_usage_error() -> None:
    with pytest.raises(StoreUsageError, match="cannot make a store at /proc/regroup"):
        open_store("/proc/regroup", create=True)


def test_a_read_only_folder_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(str(tmp_path), create=True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StoreUsageError, match="read-only") as caught:
        open_store(str(tmp_path))
    assert caught.value.exit_status == 2
    open_store(str(tmp_path), writable=False)


@pytest.mark.parametrize(
    ("uri", "words"),
    [("ftp://x/y", "not supported"), ("s3://", "no bucket"), ("", "empty name")],
)
def test_other_uris_are_refused(uri: str, words: str) -> None:
    with pytest.raises(StoreUsageError, match=words):
        open_store(uri)


def test_an_escaping_s3_prefix_is_refused() -> None:
    with pytest.raises(StoreError):
        backend_for("s3://bucket/a/../b")


def test_s3_takes_its_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    backend = backend_for("s3://bucket/some/prefix/")
    assert isinstance(backend, ObjectBackend)
    assert backend.uri == "s3://bucket/some/prefix"
    assert "some/prefix" in repr(backend.client)
    assert pickle.loads(pickle.dumps(backend)).uri == backend.uri  # noqa: S301  (our own bytes)


def test_relative_folders_and_file_uris_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("here", create=True)
    assert store.uri == str(tmp_path / "here")
    assert open_store(f"file://{tmp_path}/here").uri == store.uri


def test_a_block_is_synced_with_every_folder_above_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, synced = store.backend, list[Path]()
    keys = [f"a/c/{number}/0" for number in range(40)]
    for key in keys:
        backend.replace(key, b"x")
    monkeypatch.setattr(local, "_sync", synced.append)
    backend.sync(keys)
    root = Path(backend.uri)
    folders = {root, root / "a", root / "a/c", *(root / f"a/c/{number}" for number in range(40))}
    assert set(synced[:40]) == {root / key for key in keys}  # a name after what it names
    assert sorted(synced[40:]) == sorted(folders)


def test_a_sync_that_fails_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        if path.name == "17":
            raise OSError(errno.EIO, "Input/output error")

    keys = [f"a/{number}" for number in range(40)]
    for key in keys:
        store.backend.replace(key, b"x")
    monkeypatch.setattr(local, "_sync", fail)
    with pytest.raises(StoreError, match="cannot write a block"):
        store.backend.sync(keys)
