"""A worker killed in the midst of a long block of an attack: no sample is attacked twice."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from regroup.attacks import AttackSpec, make_attack
from regroup_cluster.dispatch.actor_pool import release_open_pools
from regroup_cluster.workers.attack import AttackWork
from regroup_pipelines.configs.options import ClusterOptions, ModelOptions
from regroup_pipelines.steps.attacking import attack_index
from regroup_pipelines.steps.network import open_network
from regroup_pipelines.steps.session import Session
from regroup_store.format.element import BlockElement
from regroup_store.kinds.indexes import SampleIndex
from tests.cluster.attacks import Slow
from tests.faults.conftest import Study, contents
from tests.faults.disturbed import Disturbance, disturb

ROWS, BATCH, BEFORE = 36, 2, 7


def attack(
    study: Study, folder: Path, spec: AttackSpec, workers: int, block_rows: int
) -> BlockElement:
    """The adversarials, made in a store that holds the study's indexes alone."""
    if not folder.exists():
        shutil.copytree(study.store / "indexes", folder / "indexes")
        shutil.copy(study.store / "store.json", folder)
    network = open_network(ModelOptions(model="digits-cnn", weights=str(study.weights)))
    with Session(ClusterOptions(store=str(folder), workers=workers)) as session:
        index = SampleIndex.open(session.store, "digits-val-digits-cnn-correct")
        return attack_index(session, network, index, spec, BATCH, block_rows)


def kill_after(spec: Slow, samples: int) -> None:
    """Kill -9 the worker that attacks, once it has begun so many samples."""
    deadline = time.monotonic() + 120
    while len(spec.attacked()) < samples and time.monotonic() < deadline:
        time.sleep(0.02)
    pid = Path(spec.log).read_text().splitlines()[-1].split()[0]
    os.kill(int(pid), signal.SIGKILL)


def test_a_worker_killed_within_a_block(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One block of 18 sub-batches; the next attempt, in another process, goes on."""
    release_open_pools()
    patched: Any = partial(AttackWork, checkpoint_s=0.0)
    monkeypatch.setattr("regroup_pipelines.steps.attacking.AttackWork", patched)
    slow = Slow(log=str(tmp_path / "log"), seconds=0.2)
    killer = threading.Thread(target=kill_after, args=(slow, BEFORE))
    killer.start()
    killed = attack(study, tmp_path / "killed", slow, 1, ROWS)
    killer.join()
    attacked = slow.attacked()
    pids = {line.split()[0] for line in Path(slow.log).read_text().splitlines()}
    assert len(pids) == 2, "it was killed and went on elsewhere"
    assert len(set(attacked)) == ROWS
    assert len(attacked) <= ROWS + BATCH, "only what was being attacked was attacked again"
    resumed: Any = killed.commit(0).report["resumed"]
    assert BEFORE - BATCH <= resumed < ROWS

    plain = Slow(log=str(tmp_path / "plain-log"))
    undisturbed = attack(study, tmp_path / "plain", plain, 1, ROWS)
    folders = [tmp_path / name / "adversarials" for name in ("killed", "plain")]
    found, expected = (contents(next(folder.iterdir())) for folder in folders)
    assert found == expected
    assert killed.ref == undisturbed.ref


def kill_after_a_checkpoint(folder: Path, disturbance: Disturbance) -> None:
    """Kill -9 the worker that attacks, once it has kept something of its block."""
    deadline = time.monotonic() + 120
    while not [*folder.glob("adversarials/*/checkpoints/*/*.parquet")]:
        assert time.monotonic() < deadline, "no checkpoint was ever written"
        time.sleep(0.005)
    os.kill(disturbance.busy()[0], signal.SIGKILL)


def test_a_worker_killed_within_a_block_of_carlini_wagner(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel couples the samples of a group: the groups of the second attempt are the same."""
    release_open_pools()
    spec = make_attack("carlini-wagner", binary_searches=2, steps=60)
    plain = attack(study, tmp_path / "plain", spec, 1, ROWS)
    release_open_pools()
    monkeypatch.setattr(
        "regroup_pipelines.steps.attacking.AttackWork", partial(AttackWork, checkpoint_s=0.0)
    )
    (tmp_path / "attempts").mkdir()
    disturbance = Disturbance(tmp_path / "attempts")
    disturb(monkeypatch, disturbance, "regroup_pipelines.steps.attacking.AttackWork")
    watch = threading.Thread(
        target=kill_after_a_checkpoint, args=(tmp_path / "killed", disturbance)
    )
    watch.start()
    killed = attack(study, tmp_path / "killed", spec, 1, ROWS)
    watch.join()
    assert disturbance.attempts() == {0: 2}
    resumed: Any = killed.commit(0).report["resumed"]
    assert resumed in (16, 32), "whole groups were taken from the first attempt"
    assert plain.commit(0).report["resumed"] == 0
    folders = [tmp_path / name / "adversarials" for name in ("killed", "plain")]
    found, expected = (contents(next(folder.iterdir())) for folder in folders)
    assert found == expected


def test_examples_are_those_of_one_worker_with_three(study: Study, tmp_path: Path) -> None:
    release_open_pools()
    spec = Slow(log=str(tmp_path / "log"))
    one = attack(study, tmp_path / "one", spec, 1, 12)
    release_open_pools()
    three = attack(study, tmp_path / "three", spec, 3, 12)
    assert one.ref == three.ref
    first, second = (contents(next((tmp_path / n / "adversarials").iterdir()))
                     for n in ("one", "three"))  # fmt: skip
    assert first == second
