"""Two attempts at one block, or two drivers at one job: no mixture, no second commit, no hang."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regroup_cluster.dispatch.actor_pool import release_open_pools
from regroup_store.backends import local
from regroup_store.errors import StoreError
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from tests.cluster.jumping_clock import JUMP_S, jump_when
from tests.faults.conftest import Study, contents
from tests.faults.disturbed import Disturbance, disturb
from tests.faults.driver import start_driver
from tests.pipelines.conftest import Run
from tests.store.elements import FLOATS, INTS, make, table, values

PATIENCE_S = 90.0


def test_two_drivers_on_one_job(study: Study, tmp_path: Path) -> None:
    release_open_pools()
    store = shutil.copytree(study.store, tmp_path / "store")
    copied = Study(store, study.weights, study.bank)
    whole = contents(copied.element("features"))
    element = copied.element("features")
    shutil.rmtree(element)
    (tmp_path / "attempts").mkdir()
    disturbance = Disturbance(tmp_path / "attempts", pause_s=0.002)
    command = (
        *("extract", "--store", store, "--dataset", "digits:val", *study.model),
        *("--block-rows", 64, "--workers", 1),
    )
    drivers = [start_driver(disturbance, tmp_path / name, *command) for name in "ab"]
    for driver in drivers:
        driver.join(PATIENCE_S)
    assert [driver.exitcode for driver in drivers] == [0, 0]
    found = [json.loads((tmp_path / f"{name}.json").read_bytes()) for name in "ab"]
    told = [{k: v for k, v in each.items() if k != "steps"} for each in found]
    assert told[0] == told[1]
    assert contents(element) == whole
    assert disturbance.commits() == list(range(10))


def _write_and_stop(uri: str, ref: str, seed: int) -> None:
    """Write block 1, stopping for good in the midst of it, with some chunks written."""

    def stop(path: Path) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        sync(path)

    sync, local._sync = local._sync, stop
    element = BlockElement.open(open_store(uri), "features", ref)
    element.write_block(1, values(element, 1, seed), table(element, 1), {})


def _state(pid: int) -> str:
    """What the kernel says that a process does: T, it is stopped; X, it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def _stopped(pid: int) -> bool:
    return _state(pid) == "T"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGCONT])
def test_a_stopped_writer_holds_others_off_until_it_ends(
    end: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, it frees its lock and the next attempt commits; going on, it commits itself."""
    monkeypatch.setattr(local, "LOCK_PATIENCE_S", 0.2)
    store = open_store(str(tmp_path / "store"), create=True)
    element = make(store)
    forked = multiprocessing.get_context("forkserver")
    writer = forked.Process(target=_write_and_stop, args=(store.uri, element.ref, 7))
    writer.start()
    assert writer.pid is not None
    patience = time.monotonic() + PATIENCE_S
    while not _stopped(writer.pid):
        assert time.monotonic() < patience
        time.sleep(0.01)
    mine: dict[str, Any] = values(element, 1, seed=8)
    with pytest.raises(StoreError, match="another process has been writing block 1"):
        element.write_block(1, mine, table(element, 1), {})
    assert element.missing() == [0, 1, 2]
    os.kill(writer.pid, end)
    while writer.is_alive():
        with contextlib.suppress(ProcessLookupError):  # it may end at any moment
            os.kill(writer.pid, signal.SIGCONT)  # it stops at every fsync
        assert time.monotonic() < patience
        time.sleep(0.01)
    assert element.write_block(1, mine, table(element, 1), {}) == (end == signal.SIGKILL)
    expected = mine if end == signal.SIGKILL else values(element, 1, seed=7)
    reader = BlockElement.open(store, "features", element.ref)
    for path in (FLOATS, INTS):
        np.testing.assert_array_equal(reader.read_array(path, 1), expected[path])


def stop_in_writing() -> None:
    """Have this process stop for good at its next fsync, holding the block's lock."""

    def stop(path: Path) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    local._sync = stop


def test_a_hung_lock_holder_costs_its_deadline_not_the_job(
    run: Run, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_open_pools()
    (tmp_path / "attempts").mkdir()
    disturbance = Disturbance(tmp_path / "attempts", faults={1: stop_in_writing}, times=1)
    disturb(monkeypatch, disturbance)
    # No deadline passes but that of the attempt that hangs, however slow this machine is.
    jump_when(monkeypatch, lambda: int(any(map(_stopped, disturbance.busy()))))
    store = tmp_path / "store"
    outcome = run(
        *("extract", "--store", store, "--dataset", "digits:val", *study.model),
        *("--block-rows", 128, "--workers", 1, "--deadline", JUMP_S / 2, "--json"),
    )
    assert outcome.status == 0, outcome.err
    assert disturbance.attempts()[1] == 2
    stopped = disturbance.busy()
    assert len(stopped) == 1
    patience = time.monotonic() + PATIENCE_S
    while not _dead(stopped[0]):
        assert time.monotonic() < patience, "the hung worker was not killed"
        time.sleep(0.1)


def _dead(pid: int) -> bool:
    return _state(pid) in "XZ"
