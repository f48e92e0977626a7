"""Stores of every schema version so far, kept in tests/data/, stay readable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regroup_store.errors import SchemaVersionError
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import seal, unseal
from regroup_store.format.manifests import BLOCK_KINDS, KINDS, ROW_KINDS, SCHEMA_VERSION
from regroup_store.format.row_tables import RowTable
from regroup_store.format.store import Store, open_store
from regroup_store.kinds.banks import read_bank
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.kinds.listings import Listing
from regroup_store.maintenance.verify import verify_store

DATA = Path(__file__).parents[1] / "data"
ROW_TABLES: dict[str, type[RowTable]] = {"listings": Listing, "indexes": SampleIndex}
VERSIONS = sorted(DATA.glob("schema-*"))


def opened(version: Path, folder: Path) -> tuple[Store, dict[str, Any]]:
    """A copy of the store of a version, and what it must hold."""
    store = shutil.copytree(version / "store", folder / "store")
    return open_store(str(store)), json.loads((version / "expected.json").read_bytes())


def test_the_current_version_is_committed() -> None:
    assert DATA / f"schema-{SCHEMA_VERSION}" in VERSIONS


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_every_value_is_read(version: Path, tmp_path: Path) -> None:
    store, expected = opened(version, tmp_path)
    for kind in ROW_KINDS:
        rows = ROW_TABLES[kind].open(store, "pets")
        assert rows.ref == expected[kind]["ref"]
        assert rows.rows().to_pydict() == expected[kind]["rows"]
        assert list(rows.class_names) == expected[kind]["class_names"]
    for kind in BLOCK_KINDS:
        _check_element(store, kind, expected[kind])
    bank = read_bank(store, expected["banks"]["ref"])
    assert bank.counts.tolist() == expected["banks"]["counts"]
    mixtures = expected["banks"]["mixtures"]
    assert {t: m.tolist() for t, m in zip(bank.taps, bank.mixtures, strict=True)} == mixtures
    found = list(verify_store(store))
    assert [finding.problem for finding in found if finding.level != "note"] == []
    assert all("without their fingerprint" in finding.problem for finding in found)
    assert all(info.finalised for info in store.elements())


def _check_element(store: Store, kind: str, expected: dict[str, Any]) -> None:
    element = BlockElement.open(store, kind, expected["ref"])
    assert element.samples().to_pydict() == expected["rows"]
    assert element.summary() == expected["summary"]
    assert {spec.path for spec in element.arrays} == set(expected["arrays"])
    for path, values in expected["arrays"].items():
        blocks = range(element.plan.blocks)
        stored = np.concatenate([element.read_array(path, block) for block in blocks])
        np.testing.assert_array_equal(stored, np.array(values, dtype=stored.dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_a_newer_version_is_refused_with_what_it_needs(kind: str, tmp_path: Path) -> None:
    store, expected = opened(VERSIONS[-1], tmp_path)
    key = f"{kind}/{expected[kind]['ref']}/manifest.json"
    newer = {**unseal(store.backend.read(key), key), "schema_version": SCHEMA_VERSION + 1}
    store.backend.replace(key, seal(newer))
    rows = {kind: table.open for kind, table in ROW_TABLES.items()}
    read: dict[str, Any] = {**rows, "banks": read_bank}
    with pytest.raises(SchemaVersionError) as caught:
        read.get(kind, lambda s, ref: BlockElement.open(s, kind, ref))(store, expected[kind]["ref"])
    assert f"{key} of the store {store.uri} has schema version {SCHEMA_VERSION + 1}" in str(
        caught.value
    )
    assert f"this release reads version {SCHEMA_VERSION}" in str(caught.value)
    assert "install a newer release of regroup-ray" in str(caught.value)
    assert caught.value.exit_status == 1


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    store, _ = opened(VERSIONS[-1], tmp_path)
    marker = json.dumps({"format": "regroup-store", "schema_version": SCHEMA_VERSION + 1})
    store.backend.replace("store.json", marker.encode())
    with pytest.raises(
        SchemaVersionError, match=rf"version {SCHEMA_VERSION + 1}, .* newer release"
    ):
        open_store(store.uri)
