"""gc, inspect, diff and export on a real S3 server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from regroup_pipelines.cli import main
from regroup_store.errors import StoreError
from regroup_store.format.store import open_store
from regroup_store.maintenance.removal import plan_removal
from tests.objectstore.proxy import Proxy
from tests.pipelines.small_study import ATTACK, write_adversarials, write_index, write_small_study
from tests.store.elements import snapshot
from tests.store.test_removal import apply, dying, readable


def told(capfd: pytest.CaptureFixture[str], *words: object) -> Any:
    """The JSON of a command that went well."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words), "--json"])
    out, err = capfd.readouterr()
    assert not stop.value.code, err
    return json.loads(out)


def test_a_study_is_looked_after(
    uri: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = open_store(uri, create=True)
    write_small_study(store)
    before = snapshot(store)
    write_adversarials(store, write_index(store), {**ATTACK, "epsilon": 0.5}, "pets-big")
    found = told(capfd, "inspect", "pets-big", "--store", uri)
    assert [parent["kind"] for parent in found["parents"]] == ["indexes"]
    assert found["size_bytes"] > 1000
    differ = told(capfd, "diff", "adversarials/pets-pgd", "pets-big", "--store", uri)
    assert [d["path"] for d in differ["differences"]] == [["attack.epsilon"]]
    gone = told(capfd, "gc", "--store", uri, "--delete", "--yes")
    assert gone["deleted"] == [f"adversarials/{found['ref']}"]
    assert snapshot(store) == before
    assert told(capfd, "verify", "--store", uri)["findings"] == []
    told(capfd, "export", "--store", uri, "--study", "small", "-o", tmp_path)
    path = tmp_path / "small-samples.parquet"
    counted = duckdb.connect().execute(f"SELECT count(*) FROM '{path}'").fetchall()
    assert counted == [(8,)]


def test_a_killed_removal_is_gone_on_with(uri: str) -> None:
    store = open_store(uri, create=True)
    write_small_study(store)
    store.backend.delete("studies/small/results.json")
    for left in (1, 12, 40):
        with pytest.raises(StoreError, match="killed before"):
            apply(dying(store, left), plan_removal(store))
        readable(store)
    apply(store, plan_removal(store))
    assert list(snapshot(store)) == ["store.json"]


def test_a_deletion_that_has_to_be_tried_again(uri: str, proxy: Proxy) -> None:
    store = open_store(uri, create=True)
    write_small_study(store)
    store.backend.delete("studies/small/results.json")
    proxy.fail("busy", 3)
    apply(store, plan_removal(store))
    assert list(snapshot(store)) == ["store.json"]
