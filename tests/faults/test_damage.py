"""Damage of every sort to every kind at once: the commands name it and compute just that again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regroup_cluster.dispatch.actor_pool import release_open_pools
from tests.faults.conftest import Study, contents
from tests.pipelines.conftest import Run
from tests.store.test_damage import flip, truncate

CHUNKS = {
    "features": "accumulators.zarr/logits/c/{}/0/0",
    "adversarials": "images.zarr/c/{}/0/0/0",
    "votes": "true_rank.zarr/c/{}/0/0",
}


def remove(path: Path) -> None:
    path.unlink()


def changed(how: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_bytes(how(path.read_bytes()))

    return change


HOWS = [changed(truncate), changed(flip), remove]


def damage(study: Study, kind: str, turn: int) -> dict[str, int]:
    """Damage a chunk, a part and a commit record, each in another way; return block by key."""
    names = {CHUNKS[kind].format(0): 0, "samples/part-00002.parquet": 2, "commits/00004.json": 4}
    element = study.element(kind)
    for number, name in enumerate(names):
        HOWS[(turn + number) % 3](element / name)
    folder = element.relative_to(study.store).as_posix()
    return {f"{folder}/{name}": block for name, block in names.items()}


def test_damage_to_every_kind_is_named_and_computed_again(
    run: Run, study: Study, tmp_path: Path
) -> None:
    release_open_pools()
    store = shutil.copytree(study.store, tmp_path / "store")
    copied = Study(store, study.weights, study.bank)
    damaged: dict[str, int] = {}
    for turn, kind in enumerate(CHUNKS):
        damaged |= damage(copied, kind, turn)
    found = run("verify", "--store", store, "--json")
    assert found.status == 1
    bad = {f["path"]: f["block"] for f in found.json["findings"] if f["level"] == "damaged"}
    assert bad == damaged
    repaired = run("repair", "--store", store, "--json")
    assert repaired.status == 0
    assert [each["blocks"] for each in repaired.json["repairs"]] == [[0, 2, 4]] * 3
    ran = [step for command in _commands(copied) for step in _steps(run, *command)]
    computed = {s["ref"]: (s["blocks"], s["forward_passes"] > 0) for s in ran if s["blocks"]}
    refs = {kind: copied.element(kind).name for kind in CHUNKS}
    expected = [(refs["features"], True), (refs["adversarials"], True), (refs["votes"], False)]
    assert computed == {ref: (3, forward) for ref, forward in expected}
    passes = {s["ref"]: s["forward_passes"] for s in ran if s["blocks"]}
    assert passes[refs["features"]] == 3 * 64
    for kind in CHUNKS:
        assert contents(copied.element(kind)) == contents(study.element(kind))
    assert run("verify", "--store", store).status == 0


def _commands(study: Study) -> list[tuple[object, ...]]:
    """The jobs that made the study, in order."""
    common = ("--store", study.store, "--workers", 1, "--json")
    images = ("--dataset", "digits:val", *study.model)
    attack = ("--limit", 36, "--steps", 2, "--batch", 16, "--block-rows", 6)
    return [
        ("extract", *common, *images),
        ("attack", *common, *images, *attack),
        ("rescore", *common, "--bank", study.bank),
    ]


def _steps(run: Run, *command: object) -> list[dict[str, Any]]:
    outcome = run(*command)
    assert outcome.status == 0, outcome.err
    steps: list[dict[str, Any]] = outcome.json["steps"]
    return steps
