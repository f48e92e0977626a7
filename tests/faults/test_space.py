"""A store that is full, read-only, or gone in the midst of a job: one sentence, nothing lost."""

from __future__ import annotations

import errno
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from regroup_cluster.dispatch.actor_pool import release_open_pools
from regroup_store.backends.local import LocalBackend
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from tests.faults.conftest import Study, commits
from tests.faults.disturbed import Disturbance, disturb
from tests.pipelines.conftest import Outcome, Run

NAME = "digits-val-digits-cnn"


def mount(*arguments: object) -> bool:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 700 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or not mount("-t", "tmpfs", "-o", "size=700k", "tmpfs", disk):
        pytest.skip("this user may not mount a small file system")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=False)


@pytest.fixture
def attempts(tmp_path: Path) -> Path:
    release_open_pools()
    (tmp_path / "attempts").mkdir()
    return tmp_path / "attempts"


def extract(run: Run, study: Study, store: Path) -> Outcome:
    return run(
        *("extract", "--store", store, "--dataset", "digits:val", *study.model),
        *("--block-rows", 64, "--workers", 1, "--json"),
    )


def told(outcome: Outcome) -> str:
    """The last line on standard error: the command's one sentence."""
    assert "Traceback" not in outcome.err
    return outcome.err.splitlines()[-1]


def assert_readable(store: Path, blocks: int) -> None:
    element = BlockElement.open(open_store(str(store), writable=False), "features", NAME)
    assert len(element.committed()) == blocks
    for block in element.committed():
        element.read_table(block)
        for spec in element.arrays:
            element.read_array(spec.path, block)


def test_a_full_disk(
    run: Run, study: Study, small_disk: Path, attempts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbance, store = Disturbance(attempts), small_disk / "store"
    disturb(monkeypatch, disturbance)
    outcome = extract(run, study, store)
    assert outcome.status == 1
    assert f"no space left for the store {store}" in told(outcome)
    assert "run the same command again" in told(outcome)
    kept = commits(next(store.glob("features/*")))
    assert len(kept) >= 1
    # The block that met the full disk was not tried again, and no other after it.
    assert sum(disturbance.attempts().values()) == len(kept) + 1
    assert_readable(store, len(kept))
    assert mount("-o", "remount,size=16m", small_disk)
    again = extract(run, study, store)
    assert again.status == 0, again.err
    assert again.json["steps"][-1]["skipped"] == len(kept)


def full() -> None:
    with LocalBackend(Path("/the/store")).writes("block 2"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_store_is_not_tried_again(
    run: Run, study: Study, attempts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    disturbance = Disturbance(attempts, faults={2: full})
    disturb(monkeypatch, disturbance)
    outcome = extract(run, study, tmp_path / "store")
    assert outcome.status == 1
    assert "no space left for the store /the/store (writing block 2)" in told(outcome)
    assert disturbance.attempts() == {0: 1, 1: 1, 2: 1}


def test_a_read_only_store(run: Run, study: Study, small_disk: Path, attempts: Path) -> None:
    store = small_disk / "store"
    store.mkdir()
    shutil.copytree(study.store / "indexes", store / "indexes")
    shutil.copy(study.store / "store.json", store)
    assert mount("-o", "remount,ro", small_disk)
    outcome = extract(run, study, store)
    assert outcome.status == 2
    assert f"the store {store} is read-only" in told(outcome)
    assert run("ls", "--store", store).status == 0
    assert run("verify", "--store", store).status == 0


def test_a_store_that_vanishes(
    run: Run, study: Study, attempts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    disturbance, store = Disturbance(attempts, pause_s=0.01), tmp_path / "store"
    disturb(monkeypatch, disturbance)

    def vanish() -> None:
        patience = time.monotonic() + 120
        while len(list(store.glob("features/*/commits/*.json"))) < 2:
            assert time.monotonic() < patience
            time.sleep(0.01)
        store.rename(tmp_path / "elsewhere")

    thread = threading.Thread(target=vanish)
    thread.start()
    outcome = extract(run, study, store)
    thread.join()
    assert outcome.status == 1
    assert f"the store {store} has vanished" in told(outcome)
    assert max(disturbance.attempts().values()) == 1
    shutil.rmtree(store, ignore_errors=True)  # what a write in progress may have left
    (tmp_path / "elsewhere").rename(store)
    kept = commits(next(store.glob("features/*")))
    assert len(kept) >= 2
    assert_readable(store, len(kept))
    again = extract(run, study, store)
    assert again.status == 0, again.err
    assert again.json["steps"][-1]["skipped"] == len(kept)
