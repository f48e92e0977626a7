"""The digits study on a real S3 server: the numbers of a folder, found again, repaired."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest

from regroup_store.backends.s3 import s3_client
from regroup_store.format.element import BlockElement
from regroup_store.format.manifests import KINDS
from regroup_store.format.store import Store, open_store
from tests.objectstore.conftest import ROOT, Command
from tests.objectstore.server import BUCKET, Server, end
from tests.store.test_damage import flip

FEATURES = "digits-val-digits-cnn"
LIMIT = 16  # what the attacks compute at once on a CPU
# An entire study: minutes on a busy machine.
pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True)
class Study:
    """A demo that ran on S3: its store, its folder of results, what it printed as JSON."""

    uri: str
    output: Path
    results: dict[str, Any]

    @property
    def weights(self) -> Path:
        return self.output / "digits-cnn.safetensors"

    def options(self, store: object) -> list[object]:
        """The options of every command that needs the network."""
        return ["--store", store, "--dataset", "digits:val", "--model", "digits-cnn",
                "--weights", self.weights, "--json"]  # fmt: skip


def demo(command: Command, store: object, output: Path) -> dict[str, Any]:
    outcome = command(
        "demo", "--store", store, "--output", output, "--limit", LIMIT, "--json", "--workers", 2
    )
    assert outcome.status == 0, outcome.err
    found: dict[str, Any] = outcome.json
    return found


@pytest.fixture(scope="module")
def study(command: Command, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    uri, output = f"s3://{BUCKET}/study", tmp_path_factory.mktemp("results")
    shutil.copy(weights, output)
    return Study(uri, output, demo(command, uri, output))


@pytest.fixture
def copied(study: Study, uri: str) -> Store:
    """A copy of the study's store to be damaged."""
    return copy(study, uri)


def copy(study: Study, uri: str) -> Store:
    there, here = (s3_client(BUCKET, u.removeprefix(f"s3://{BUCKET}/")) for u in (study.uri, uri))
    for batch in obstore.list(there):
        for entry in batch:
            obstore.put(here, entry["path"], obstore.get(there, entry["path"]).bytes())
    return open_store(uri)


def test_the_numbers_are_those_of_a_folder(
    study: Study, command: Command, tmp_path: Path, variables: Server
) -> None:
    shutil.copy(study.weights, tmp_path)
    folder = demo(command, tmp_path / "store", tmp_path)
    assert study.results["evaluations"] == folder["evaluations"]
    in_bucket, in_folder = open_store(study.uri), open_store(str(tmp_path / "store"))
    refs = [[info.ref for info in store.elements()] for store in (in_bucket, in_folder)]
    assert refs[0] == refs[1]
    assert_same_values(in_bucket, in_folder, "features", FEATURES)


def assert_same_values(one: Store, other: Store, kind: str, ref: str) -> None:
    found, expected = (BlockElement.open(store, kind, ref) for store in (one, other))
    for block in range(expected.plan.blocks):
        for spec in expected.arrays:
            np.testing.assert_array_equal(
                found.read_array(spec.path, block), expected.read_array(spec.path, block)
            )
    assert found.samples() == expected.samples()


def test_a_second_run_finds_everything(study: Study, command: Command) -> None:
    again = demo(command, study.uri, study.output)
    assert all(step["blocks"] == 0 for step in again["steps"])
    assert again["evaluations"] == study.results["evaluations"]


def test_every_command_finds_the_study(study: Study, command: Command) -> None:
    store, bank = ["--store", study.uri, "--json"], ["--bank", "digits-train-digits-cnn"]
    training = ["digits:train" if o == "digits:val" else o for o in study.options(study.uri)]
    budget = ["--protocol", "budget", "--epsilon", "32/255", "--bisections", 10, "--limit", LIMIT]
    attacked = ["--adversarials", "digits-val-digits-cnn-pgd-budget"]
    for arguments in (
        ["index-dataset", *store, "--dataset", "digits:val"],
        ["extract", *study.options(study.uri)],
        ["build-bank", *training],
        ["attack", *study.options(study.uri), *budget],
        ["evaluate", *study.options(study.uri), *bank, *attacked],
        ["rescore", *store, *bank, "--features", "digits-val-digits-cnn"],
        ["repair", *store, "--dry-run"],
    ):
        outcome = command(*arguments)
        assert outcome.status == 0, outcome.err
        assert [s for s in outcome.json.get("steps", []) if s["blocks"]] == [], arguments


def test_ls_and_verify(study: Study, command: Command) -> None:
    listed = command("ls", "--store", study.uri, "--json").json["elements"]
    assert {e["kind"] for e in listed} == set(KINDS)
    assert all(e["finalised"] and e["problem"] is None and e["size_bytes"] for e in listed)
    outcome = command("verify", "--store", study.uri, "--json")
    assert (outcome.status, outcome.json["findings"]) == (0, [])


def test_damage_is_named_repaired_and_computed_again(
    study: Study, command: Command, copied: Store
) -> None:
    element = BlockElement.open(copied, "features", FEATURES)
    flipped = f"features/{element.ref}/accumulators.zarr/logits/c/1/0/0"
    deleted = f"features/{element.ref}/samples/part-00003.parquet"
    copied.backend.replace(flipped, flip(copied.backend.read(flipped)))
    copied.backend.delete(deleted)
    found = command("verify", "--store", copied.uri, "--json")
    assert found.status == 1
    assert {f["path"]: f["block"] for f in found.json["findings"]} == {flipped: 1, deleted: 3}
    repaired = command("repair", "--store", copied.uri, "--json")
    assert (repaired.status, repaired.json["repairs"][0]["blocks"]) == (0, [1, 3])
    assert BlockElement.open(copied, "features", FEATURES).missing() == [1, 3]
    outcome = command("extract", *study.options(copied.uri))
    assert outcome.status == 0, outcome.err
    (step,) = (s for s in outcome.json["steps"] if s["step"].startswith("extract"))
    assert (step["blocks"], step["skipped"]) == (2, element.plan.blocks - 2)
    assert_same_values(copied, open_store(study.uri), "features", FEATURES)
    assert command("verify", "--store", copied.uri).status == 0


def _commits(store: Store, before: set[str]) -> dict[str, bytes]:
    """The commit records of the adversarials that were not there before."""
    refs = [ref for ref in store.backend.children("adversarials") if ref not in before]
    keys = [key for ref in refs for key in store.backend.keys(f"adversarials/{ref}/commits")]
    return {key: store.backend.read(key) for key in keys}


def test_a_killed_driver_goes_on_where_it_was(
    study: Study, command: Command, uri: str, tmp_path: Path
) -> None:
    attack = ["--protocol", "minimal", "--steps", 4, "--bisections", 3, "--limit", 16,
              "--block-rows", 2, "--batch", 2, "--seed", 1]  # fmt: skip
    store, undisturbed = copy(study, f"{uri}/killed"), copy(study, f"{uri}/undisturbed")
    before = {info.ref for info in store.elements("adversarials")}
    arguments = [str(a) for a in ["attack", *study.options(store.uri), *attack]]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment["HOME"] = str(tmp_path)
    job = subprocess.Popen(
        [sys.executable, "-m", "regroup_pipelines.cli", *arguments], cwd=ROOT, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        patience = time.monotonic() + 180
        while not _commits(store, before):
            assert job.poll() is None, "the command ended before its first block"
            assert time.monotonic() < patience
            time.sleep(0.1)
        job.kill()
        assert job.wait(30) == -signal.SIGKILL
    finally:
        end(job)
    kept = _commits(store, before)
    outcome = command(*arguments)
    assert outcome.status == 0, outcome.err
    step = outcome.json["steps"][-1]
    assert step["skipped"] + step["blocks"] == 8
    assert len(kept) <= step["skipped"] < 8
    assert kept.items() <= _commits(store, before).items()
    assert command("attack", *study.options(undisturbed.uri), *attack).status == 0
    (ref,) = {info.ref for info in store.elements("adversarials")} - before
    assert_same_values(store, undisturbed, "adversarials", ref)
    assert command("verify", "--store", store.uri).status == 0
