"""What a long attack has made of a block outlives its worker: no sample is attacked twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regroup_cluster.dispatch.attempt import measured
from regroup_cluster.workers.attack import AttackWork
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.adversarials import IMAGES
from regroup_store.maintenance.verify import verify_store
from tests.cluster.attacks import Broken, Coupled, Noise, Slow, noise

ROWS = 7


def keys(given: Noise, work: AttackWork) -> list[str]:
    """The checkpoints of the element."""
    folder = f"adversarials/{work.adversarials_ref}/checkpoints"
    return given.store.backend.keys(folder)


def contents(element: BlockElement) -> tuple[bytes, str]:
    """Images and table of an element of one block."""
    return element.read_array(IMAGES, 0).tobytes(), repr(element.samples().to_pydict())


class StopError(Exception):
    """The worker's end."""


def interrupt(monkeypatch: pytest.MonkeyPatch, attack: type[Slow], after: int) -> None:
    """Have the attack end with an exception instead of its call number `after`."""
    calls, run = [0], attack.attack

    def stopping(self: Slow, *args: object) -> object:
        calls[0] += 1
        if calls[0] > after:
            raise StopError
        return run(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(attack, "attack", stopping)


def begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: Slow, after: int = 2
) -> tuple[Noise, AttackWork]:
    """A block of which two sub-batches of two samples were attacked before its worker ended."""
    given = noise(tmp_path, ROWS, wrong=1)
    work = given.work(attack, ROWS, batch=2, checkpoint_s=0.0)
    interrupt(monkeypatch, Slow, after)
    with pytest.raises(StopError):
        measured(work.open(), 0)
    monkeypatch.undo()
    return given, work


def undisturbed(folder: Path, attack: Slow) -> tuple[bytes, str]:
    plain = noise(folder, ROWS, wrong=1)
    whole = plain.work(replace(attack, log=str(folder / "other")), ROWS, batch=2)
    measured(whole.open(), 0)
    return contents(plain.element(whole))


@pytest.mark.parametrize("batch", [2, 5], ids=["same batch", "another batch"])
def test_a_later_attempt_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    attack = Slow(log=str(tmp_path / "log"))
    given, work = begun(tmp_path, monkeypatch, attack)
    assert len(keys(given, work)) == 2
    assert attack.attacked() == ["s0", "s2", "s3"]
    assert measured(replace(work, batch=batch).open(), 0).committed
    assert attack.attacked() == ["s0", "s2", "s3", "s4", "s5", "s6"]
    assert contents(given.element(work)) == undisturbed(tmp_path / "plain", attack)
    report: Any = given.element(work).commit(0).report
    assert report["resumed"] == 3
    assert all(s > 0 for s in np.delete(report["sample_seconds"], 1)), "those of both attempts"
    assert keys(given, work) == []


def test_a_short_block_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = noise(tmp_path, ROWS)
    work = given.work(Slow(log=str(tmp_path / "log")), ROWS)
    interrupt(monkeypatch, Slow, 2)
    with pytest.raises(StopError):
        measured(work.open(), 0)
    assert keys(given, work) == []


def _work(work: AttackWork) -> None:
    torch.set_num_threads(1)  # the threads of the test's own process are not in its fork
    measured(work.open(), 0)


def test_kill_nine(tmp_path: Path) -> None:
    """A process of its own, killed in the midst of a sub-batch that takes long."""
    given = noise(tmp_path, ROWS, wrong=1)
    attack = Slow(log=str(tmp_path / "log"), seconds=0.3)
    work = given.work(attack, ROWS, batch=1, checkpoint_s=0.0)
    process = multiprocessing.get_context("fork").Process(target=_work, args=(work,))
    process.start()
    deadline = time.monotonic() + 60
    while len(attack.attacked()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    before = attack.attacked()
    kept = len(keys(given, work))
    assert 2 <= kept <= len(before) < 6, "killed in the midst of the block"
    assert given.element(work).missing() == [0]
    measured(replace(work, attack=replace(attack, seconds=0.0)).open(), 0)
    after = attack.attacked()[len(before) :]
    assert len(after) == 6 - kept
    assert not set(after) & set(before[:kept])
    assert contents(given.element(work)) == undisturbed(tmp_path / "plain", attack)


@pytest.mark.parametrize("damage", ["cut", "flipped", "renamed", "foreign"])
def test_a_damaged_checkpoint_is_removed_and_its_samples_attacked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    attack = Slow(log=str(tmp_path / "log"))
    given, work = begun(tmp_path, monkeypatch, attack)
    backend, (first, _) = given.store.backend, keys(given, work)
    data = backend.read(first)
    if damage == "foreign":
        backend.replace(first.replace(first.rpartition("/")[2], "notes.txt"), b"hello")
        backend.delete(first)
    elif damage == "renamed":
        backend.replace(first[:-9] + "0.parquet", data)
        backend.delete(first)
    else:
        changed = data[:-7] if damage == "cut" else data[:50] + bytes([data[50] ^ 1]) + data[51:]
        backend.replace(first, changed)
    measured(work.open(), 0)
    assert attack.attacked()[3:] == ["s0", "s4", "s5", "s6"]
    assert contents(given.element(work)) == undisturbed(tmp_path / "plain", attack)
    assert keys(given, work) == []


def test_a_checkpoint_of_other_rows_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the manifest was lost, and made again with another block plan."""
    attack = Slow(log=str(tmp_path / "log"))
    given, work = begun(tmp_path, monkeypatch, attack)
    backend = given.store.backend
    folder = f"adversarials/{work.adversarials_ref}"
    for key in keys(given, work):
        backend.replace(key.replace("/00000/", "/00001/"), backend.read(key))
        backend.delete(key)
    for key in backend.keys(folder):
        if "checkpoints" not in key:
            backend.delete(key)
    again = given.work(attack, 4, batch=2, checkpoint_s=0.0)
    assert again.adversarials_ref == work.adversarials_ref
    assert measured(again.open(), 1).committed
    assert attack.attacked()[3:] == ["s4", "s5", "s6"]
    assert keys(given, again) == []


def test_failures_of_the_kernel_are_kept(tmp_path: Path) -> None:
    given = noise(tmp_path, 3)
    work = given.work(Broken(), 3, checkpoint_s=0.0)
    worker = work.open()
    write = worker._write
    worker._write = None  # type: ignore[assignment, method-assign]
    with pytest.raises(TypeError):
        measured(worker, 0)
    worker._write = write  # type: ignore[method-assign]
    resumed = work.open()
    resumed._attack_piece = None  # type: ignore[assignment, method-assign]
    assert measured(resumed, 0).failed == 2
    plain = noise(tmp_path / "plain", 3)
    whole = plain.work(Broken(), 3)
    measured(whole.open(), 0)
    assert contents(given.element(work)) == contents(plain.element(whole))


def test_coupled_attacks_resume_in_whole_groups(tmp_path: Path) -> None:
    given, plain = noise(tmp_path, 8, wrong=1), noise(tmp_path / "plain", 8, wrong=1)
    work, whole = given.work(Coupled(), 8, checkpoint_s=0.0), plain.work(Coupled(), 8)
    worker = work.open()
    pieces = worker._attack_piece
    calls: list[int] = []

    def second_fails(*args: object) -> bool:
        calls.append(1)
        if len(calls) == 2:
            raise StopError
        return pieces(*args)  # type: ignore[arg-type]

    worker._attack_piece = second_fails  # type: ignore[method-assign, assignment]
    with pytest.raises(StopError):
        measured(worker, 0)
    assert len(keys(given, work)) == 1
    measured(work.open(), 0)
    measured(whole.open(), 0)
    assert contents(given.element(work)) == contents(plain.element(whole))


def test_verify_takes_them_for_work_in_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, _ = begun(tmp_path, monkeypatch, Slow(log=str(tmp_path / "log")))
    findings = list(verify_store(open_store(given.store.uri)))
    assert {finding.level for finding in findings} == {"note"}
    told = [f.problem for f in findings if "checkpoint" in f.path]
    assert len(told) == 1
    assert "block" in told[0]


def test_what_a_killed_worker_left_of_a_committed_block_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command, whose workers have nothing to do any more."""
    attack = Slow(log=str(tmp_path / "log"))
    given, work = begun(tmp_path, monkeypatch, attack)
    left = {key: given.store.backend.read(key) for key in keys(given, work)}
    given.element(work).clear_checkpoints()
    assert keys(given, work) == [*left], "the block is not committed"
    measured(work.open(), 0)
    for key, data in left.items():
        given.store.backend.replace(key, data)
    given.element(work).clear_checkpoints()
    assert keys(given, work) == []
