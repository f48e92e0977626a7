"""kill -9 of actors in the midst of a block, of tasks and of drivers, at seeded random moments."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from regroup_cluster.dispatch.actor_pool import release_open_pools
from regroup_pipelines.configs.options import (
    AttackOptions,
    ClusterOptions,
    ModelOptions,
    VotingOptions,
)
from regroup_pipelines.errors import IncompleteError
from regroup_pipelines.results.records import LedgerEntry
from regroup_pipelines.schema.attack_options import attack_spec
from regroup_pipelines.steps.attacking import attack_index
from regroup_pipelines.steps.extraction import extract_index
from regroup_pipelines.steps.network import open_network
from regroup_pipelines.steps.scoring import score
from regroup_pipelines.steps.session import Session
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.banks import read_bank
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.maintenance.verify import verify_store
from tests.faults.conftest import Study, commits, contents
from tests.faults.disturbed import WORK, Disturbance, disturb
from tests.faults.driver import start_driver

PATIENCE_S = 90.0
BLOCK_ROWS = {"features": 64, "adversarials": 6, "votes": 64}
# A block makes its chunks durable together, sixteen files at a time, then its part and its commit:
# some ten pauses one after the other for features, seven for adversarials, nine for votes.
PAUSE_S = {"features": 0.03, "adversarials": 0.07, "votes": 0.04}
# Workers are killed so often in a round, each time in another attempt.
KILLS = 2
WORKERS = [(kind, seed) for seed, kind in enumerate(["features"] * 3 + ["adversarials"] * 3)]
TASKS = list(range(4))
DRIVERS = [(kind, seed) for seed, kind in enumerate([*BLOCK_ROWS, "adversarials"])]


@dataclass
class Bench:
    """A store to do harm in, and what its elements hold when nothing was disturbed."""

    study: Study
    disturbance: Disturbance
    whole: dict[str, dict[str, Any]]
    network: Any
    rounds: int = 0
    kills: int = 0
    midway: int = 0
    last: tuple[str, int] = ("", 0)
    jobs: dict[tuple[str, int], Session] = field(default_factory=dict)

    def element(self, kind: str) -> Path:
        return self.study.store / self.names[kind]

    @property
    def names(self) -> dict[str, str]:
        return {kind: str(self.whole[kind]["name"]) for kind in BLOCK_ROWS}

    def slowed(self, kind: str) -> Disturbance:
        """The disturbance with pauses that make the element of a kind take some seconds."""
        return replace(self.disturbance, pause_s=PAUSE_S[kind])

    def begin(self, kind: str) -> Path:
        """Remove the element of a kind, and what earlier rounds left; return its folder."""
        self.rounds += 1
        self.disturbance.forget()
        shutil.rmtree(self.element(kind))
        return self.element(kind)

    def run(self, kind: str, attempts: int = 3, workers: int = 2) -> LedgerEntry:
        """Make the element; the workers of the job are kept for the next round."""
        if self.last != (kind, workers):
            release_open_pools()  # The workers of another job hold the CPUs.
        self.last = (kind, workers)
        if (kind, workers) not in self.jobs:
            options = ClusterOptions(
                store=str(self.study.store), workers=workers, block_rows=BLOCK_ROWS[kind]
            )
            self.jobs[kind, workers] = Session(options)
        session = self.jobs[kind, workers]
        session.options = replace(session.options, attempts=attempts)
        _MAKE[kind](session, self.network)
        return session.ledger[-1]

    def kill(self, pid: int) -> None:
        """Kill -9; count whether that was in the midst of a block."""
        os.kill(pid, signal.SIGKILL)
        self.kills += 1
        self.midway += bool(self.disturbance.busy())


def _features(session: Session, network: Any) -> None:
    extract_index(session, network, SampleIndex.open(session.store, "digits-val"), batch=64)


def _adversarials(session: Session, network: Any) -> None:
    index = SampleIndex.open(session.store, "digits-val-digits-cnn-correct")
    spec, rows = attack_spec(AttackOptions(steps=2)), session.options.block_rows
    attack_index(session, network, index, spec, batch=16, block_rows=rows)


def _votes(session: Session, network: Any) -> None:
    features = BlockElement.open(session.store, "features", "digits-val-digits-cnn")
    bank = read_bank(session.store, "digits-val-digits-cnn")
    score(session, features, bank, VotingOptions())


_MAKE: dict[str, Callable[[Session, Any], None]] = {
    "features": _features,
    "adversarials": _adversarials,
    "votes": _votes,
}


@pytest.fixture(scope="module")
def bench(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("kills")
    (folder / "attempts").mkdir()
    disturbance = Disturbance(folder / "attempts")
    store = shutil.copytree(study.store, folder / "store")
    copied = Study(store, study.weights, study.bank)
    whole = {
        kind: {
            "name": copied.element(kind).relative_to(store),
            "is": contents(copied.element(kind)),
        }
        for kind in BLOCK_ROWS
    }
    network = open_network(ModelOptions(model="digits-cnn", weights=str(study.weights)))
    bench = Bench(copied, disturbance, whole, network)
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        for kind, session in zip(BLOCK_ROWS, WORK, strict=True):
            disturb(patch, bench.slowed(kind), session)
        yield bench
        for each in bench.jobs.values():
            stack.enter_context(each)


def wait_for_work(bench: Bench) -> None:
    patience = time.monotonic() + PATIENCE_S
    while not bench.disturbance.attempts():
        assert time.monotonic() < patience, "no block was begun"
        time.sleep(0.01)


@contextlib.contextmanager
def killer(bench: Bench, element: Path, chance: random.Random) -> Iterator[dict[str, Any]]:
    """Kill workers at random moments of what is done inside; gives what was committed then."""
    then: dict[str, Any] = {}
    done = threading.Event()

    def kill() -> None:
        killed: set[int] = set()
        while len(killed) < KILLS and not done.wait(chance.uniform(0, 0.4)):
            busy = [pid for pid in bench.disturbance.busy() if pid not in killed]
            if busy:
                then.update(commits(element))
                pid = chance.choice(busy)
                bench.kill(pid)
                killed.add(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield then
    finally:
        done.set()
        thread.join()


def assert_undisturbed(bench: Bench, kind: str, kept: dict[str, Any]) -> None:
    """The element is that of an undisturbed run, and blocks committed before were not touched."""
    element = bench.element(kind)
    assert kept.items() <= commits(element).items()
    assert contents(element) == bench.whole[kind]["is"]
    store = open_store(str(bench.study.store))
    findings = verify_store(store, [f"{kind}/{element.name}"])
    assert {finding.level for finding in findings} <= {"note"}


def disturb_workers(bench: Bench, kind: str, seed: int, capfd: Any) -> None:
    """Even seeds: the block is tried again at once; odd ones: by the next run."""
    element, chance = bench.begin(kind), random.Random(seed)
    with killer(bench, element, chance) as then, contextlib.suppress(IncompleteError):
        bench.run(kind, attempts=3 if seed % 2 == 0 else 1)
    kept, blocks = then | commits(element), _blocks(bench, kind)
    capfd.readouterr()
    bench.disturbance.forget()
    entry = bench.run(kind)
    assert (entry.skipped, entry.blocks) == (len(kept), blocks - len(kept))
    assert len(bench.disturbance.attempts()) == entry.blocks
    told = capfd.readouterr().err
    assert (f"{len(kept)} blocks already in the store" if entry.blocks else "nothing to do") in told
    assert_undisturbed(bench, kind, kept)


def _blocks(bench: Bench, kind: str) -> int:
    return sum(name.startswith("commits/") for name in bench.whole[kind]["is"])


@pytest.mark.parametrize(("kind", "seed"), WORKERS)
def test_an_actor_killed_at_a_random_moment(
    bench: Bench, kind: str, seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    disturb_workers(bench, kind, seed, capfd)


@pytest.mark.parametrize("seed", TASKS)
def test_a_task_killed_at_a_random_moment(
    bench: Bench, seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    disturb_workers(bench, "votes", seed, capfd)


COMMANDS: dict[str, tuple[object, ...]] = {
    "features": ("extract", "--dataset", "digits:val", "--block-rows", 64),
    "adversarials": (
        *("attack", "--dataset", "digits:val", "--block-rows", 6, "--limit", 36),
        *("--steps", 2, "--batch", 16),
    ),
    "votes": ("rescore",),
}


@pytest.mark.parametrize(("kind", "seed"), DRIVERS)
def test_a_driver_killed_at_a_random_moment(
    bench: Bench, kind: str, seed: int, tmp_path: Path
) -> None:
    element, chance = bench.begin(kind), random.Random(seed)
    release_open_pools()
    of = ("--bank", bench.study.bank) if kind == "votes" else bench.study.model
    command = (*COMMANDS[kind], "--store", bench.study.store, *of, "--workers", 1)
    driver = start_driver(bench.slowed(kind), tmp_path / "driver", *command)
    wait_for_work(bench)
    time.sleep(chance.uniform(0, 1.5))
    assert driver.pid is not None
    bench.kill(driver.pid)
    driver.join(PATIENCE_S)
    kept = commits(element)
    entry = bench.run(kind, workers=1)
    assert entry.skipped >= len(kept)
    assert entry.skipped + entry.blocks == _blocks(bench, kind)
    assert_undisturbed(bench, kind, kept)


def test_kills_landed_in_the_midst_of_blocks(bench: Bench) -> None:
    if bench.rounds < len(WORKERS) + len(TASKS) + len(DRIVERS):
        pytest.skip("only some of the rounds were run")
    assert bench.kills >= 20
    assert bench.midway >= 10
