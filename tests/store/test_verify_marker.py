"""A damaged or missing `store.json` is named and written again; other places are refused."""

from pathlib import Path

import pytest

from regroup_store.errors import SchemaVersionError, StoreUsageError
from regroup_store.format.store import Store, open_store
from regroup_store.maintenance.verify import open_to_verify
from tests.store.test_verify import repair, told, write_index


@pytest.mark.parametrize(
    "content", [b"{", b'{"format": "regroup-stora", "schema_version": 1}', None]
)
def test_a_damaged_marker_is_written_again(store: Store, content: bytes | None) -> None:
    write_index(store)
    if content is None:
        store.backend.delete("store.json")
    else:
        store.backend.replace("store.json", content)
    opened = open_to_verify(store.uri)
    assert told(opened) == [("damaged", "marker", None, "store.json")]
    repair(opened)
    assert told(open_store(store.uri)) == []


def test_no_store_and_a_newer_store_are_refused(tmp_path: Path, store: Store) -> None:
    with pytest.raises(StoreUsageError, match="there is no store"):
        open_to_verify(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "features").mkdir()
    with pytest.raises(StoreUsageError, match="not a regroup store"):
        open_to_verify(str(tmp_path / "other"))
    store.backend.replace("store.json", b'{"format": "regroup-store", "schema_version": 9}')
    with pytest.raises(SchemaVersionError, match="version 9"):
        open_to_verify(store.uri)
