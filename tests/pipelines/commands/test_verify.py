"""`regroup verify` names damage, `regroup repair` re-queues it, the same command restores it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regroup_pipelines.configs.table import CONFIGS
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import seal, unseal
from regroup_store.format.store import open_store
from regroup_store.kinds.banks import read_bank
from tests.pipelines.conftest import FinishedDemo, Outcome, Run
from tests.store.elements import snapshot
from tests.store.test_damage import flip, truncate

FEATURES, BANK, INDEX = "digits-val-digits-cnn", "digits-train-digits-cnn", "digits-val"


def only(store: Path, pattern: str) -> Path:
    (path,) = store.glob(pattern)
    return path


def damage(store: Path, pattern: str, how: Callable[[bytes], bytes] | None) -> str:
    """Change (or, with None, delete) the only file that matches; return its key."""
    path = only(store, pattern)
    if how is None:
        path.unlink()
    else:
        path.write_bytes(how(path.read_bytes()))
    return path.relative_to(store).as_posix()


def bad(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """The findings that are more than notes, by path."""
    return {f["path"]: f for f in outcome.json["findings"] if f["level"] != "note"}


def extract(run: Run, store: Path, demo: FinishedDemo) -> dict[str, Any]:
    """Run `extract` on the validation digits; return the step that did it."""
    outcome = run(
        "extract", "--store", store, "--dataset", "digits:val", "--model", "digits-cnn",
        "--weights", demo.weights, "--json",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    (step,) = (s for s in outcome.json["steps"] if s["step"].startswith("extract"))
    assert isinstance(step, dict)
    return step


def assert_same_features(store: Path, demo: FinishedDemo) -> None:
    """Every array and row of the features is bitwise that of the undisturbed store."""
    found, whole = (
        BlockElement.open(open_store(uri), "features", FEATURES) for uri in (str(store), demo.store)
    )
    for block in range(whole.plan.blocks):
        for spec in whole.arrays:
            np.testing.assert_array_equal(
                found.read_array(spec.path, block), whole.read_array(spec.path, block)
            )
    assert found.samples() == whole.samples()
    assert found.summary() == whole.summary()


def test_an_undamaged_store(finished_demo: FinishedDemo, run: Run) -> None:
    outcome = run("verify", "--store", finished_demo.store)
    assert outcome.status == 0
    assert outcome.out.strip() == "Nothing is damaged."
    outcome = run("verify", "--store", finished_demo.store, "--json")
    assert outcome.json == {"store": finished_demo.store, "findings": []}
    outcome = run("repair", "--store", finished_demo.store)
    assert (outcome.status, outcome.out.strip()) == (0, "Nothing is damaged.")


@pytest.mark.parametrize("how", [truncate, flip, None])
def test_damaged_blocks_are_named_requeued_and_computed_again(
    copied: Path,
    finished_demo: FinishedDemo,
    run: Run,
    how: Callable[[bytes], bytes] | None,
) -> None:
    folder = only(copied, f"features/{FEATURES}-[0-9a-f]*").relative_to(copied).as_posix()
    keys = {
        damage(copied, f"{folder}/accumulators.zarr/logits/c/0/0/0", how): 0,
        damage(copied, f"{folder}/samples/part-00001.parquet", how): 1,
        damage(copied, f"{folder}/commits/00003.json", how): 3,
    }
    found = run("verify", "--store", copied, "--json")
    assert found.status == 1
    assert {path: f["block"] for path, f in bad(found).items()} == keys
    assert f"3 damaged, 0 unreadable: {folder} block 0-1, 3." in found.err
    assert run("verify", "--store", copied, INDEX).status == 0

    untouched = snapshot(open_store(str(copied)))
    planned = run("repair", "--store", copied, "--dry-run", "--json").json
    assert snapshot(open_store(str(copied))) == untouched
    (done,) = planned["repairs"]
    assert (done["element"], done["blocks"]) == (folder, [0, 1, 3])
    assert any(kept.startswith(f"votes/{FEATURES}-") for kept in done["kept"])
    command = f"regroup extract --store {copied} --dataset digits:val --model digits-cnn"
    assert planned["commands"] == [command]

    repaired = run("repair", "--store", copied)
    assert repaired.status == 0
    computed = "the next run computes only these 3 blocks again"
    assert f"{folder}: block 0-1, 3: {computed}" in repaired.out
    assert command in repaired.out
    step = extract(run, copied, finished_demo)
    assert (step["blocks"], step["skipped"], step["forward_passes"]) == (3, 2, 3 * 128)
    assert_same_features(copied, finished_demo)
    assert run("verify", "--store", copied).status == 0


def test_a_damaged_manifest_costs_no_block(
    copied: Path, finished_demo: FinishedDemo, run: Run
) -> None:
    key = damage(copied, f"features/{FEATURES}-[0-9a-f]*/manifest.json", flip)
    found = run("verify", "--store", copied, "--json")
    assert list(bad(found)) == [key]
    assert run("repair", "--store", copied, f"features/{FEATURES}").status == 0
    # Without --block-rows the demo's 128 are not the default: those of the arrays win.
    step = extract(run, copied, finished_demo)
    assert (step["blocks"], step["skipped"]) == (0, 5)
    assert_same_features(copied, finished_demo)
    assert run("verify", "--store", copied).status == 0


@pytest.mark.parametrize("how", [truncate, flip, None])
def test_a_damaged_index_and_bank_are_built_again(
    copied: Path,
    finished_demo: FinishedDemo,
    run: Run,
    how: Callable[[bytes], bytes] | None,
) -> None:
    index = damage(copied, f"indexes/digits-train-{'[0-9a-f]' * 16}/part-00000.parquet", how)
    chunk = damage(copied, f"banks/{BANK}-*/mixtures.zarr/logits/c/1/0/0", how)
    found = run("verify", "--store", copied, "--json")
    assert found.status == 1
    assert list(bad(found)) == [index, chunk.removesuffix("/c/1/0/0")]
    repaired = run("repair", "--store", copied, "--json").json
    assert repaired["commands"] == [
        f"regroup index-dataset --store {copied} --dataset digits:train",
        f"regroup build-bank --store {copied} --dataset digits:train --model digits-cnn",
    ]
    outcome = run(
        "build-bank", "--store", copied, "--dataset", "digits:train", "--model", "digits-cnn",
        "--weights", finished_demo.weights, "--json",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert sum(step["forward_passes"] for step in outcome.json["steps"]) == 0
    again, whole = (read_bank(open_store(uri), BANK) for uri in (str(copied), finished_demo.store))
    for one, other in zip(again.mixtures, whole.mixtures, strict=True):
        np.testing.assert_array_equal(one, other)
    assert run("verify", "--store", copied).status == 0


def test_damaged_votes_are_scored_again_without_the_network(copied: Path, run: Run) -> None:
    damage(copied, f"votes/{FEATURES}-[0-9a-f]*/prediction.zarr/c/2/0/0", flip)
    (command,) = run("repair", "--store", copied, "--json").json["commands"]
    outcome = run(*command.split()[1:], "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json["cost"]["forward_passes"] == 0
    computed = [step["blocks"] for step in outcome.json["steps"]]
    assert sum(computed) == 1
    assert run("verify", "--store", copied).status == 0


def test_what_was_left_alone_is_said(copied: Path, run: Run) -> None:
    """A manifest of a newer release may be right: it is not ours to remove."""

    def newer(data: bytes) -> bytes:
        return seal({**unseal(data, "manifest"), "schema_version": 9})

    key = damage(copied, f"banks/{BANK}-*/manifest.json", newer)
    outcome = run("repair", "--store", copied)
    assert outcome.status == 1
    assert f"left alone, since unreadable: {key}" in outcome.err
    assert (copied / key).exists()


def test_the_table_names_the_damage(copied: Path, run: Run) -> None:
    key = damage(copied, f"features/{FEATURES}-[0-9a-f]*/logits.zarr/c/2/0", flip)
    outcome = run("verify", "--store", copied, FEATURES)
    assert outcome.status == 1
    assert "".join(outcome.out.split()).count("damaged") == 1
    assert key.rsplit("/", 3)[0][:40] in outcome.out


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_usage(command: str, copied: Path, run: Run, tmp_path: Path) -> None:
    assert command in CONFIGS
    outcome = run(command, "--store", tmp_path / "none")
    assert outcome.status == 2
    assert "there is no store" in outcome.err
    assert not (tmp_path / "none").exists()
    outcome = run(command, "--store", copied, "nonesuch")
    assert outcome.status == 2
    assert "there is no 'nonesuch'" in outcome.err
    assert f"features/{FEATURES}-" in outcome.err
