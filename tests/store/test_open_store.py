"""Opening and listing stores."""

import json
from pathlib import Path

import pytest

from regroup_store.errors import SchemaVersionError, StoreUsageError
from regroup_store.format.fingerprint import seal
from regroup_store.format.store import Store, open_store
from tests.store.elements import fill, make


def test_a_store_is_made_once_and_opened_after(tmp_path: Path) -> None:
    uri = str(tmp_path / "deep" / "store")
    with pytest.raises(StoreUsageError, match="there is no store at"):
        open_store(uri)
    open_store(uri, create=True)
    marker = json.loads((Path(uri) / "store.json").read_text())
    assert marker == {"format": "regroup-store", "schema_version": 1}
    assert open_store(uri).elements() == []
    assert open_store(uri, create=True).elements() == []


def test_an_empty_folder_is_no_store_until_asked(tmp_path: Path) -> None:
    with pytest.raises(StoreUsageError, match="there is no store at"):
        open_store(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("create", [False, True])
def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, create: bool) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreUsageError, match=r"not a regroup store.*thesis\.tex") as caught:
        open_store(str(tmp_path), create=create)
    assert caught.value.exit_status == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreUsageError, match="is a file, not a store"):
        open_store(str(tmp_path / "file"), create=True)


def test_a_marker_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"format": "shop"}')
    with pytest.raises(StoreUsageError, match="not one of ours"):
        open_store(str(tmp_path))


@pytest.mark.parametrize(
    ("version", "advice"), [(2, "install a newer release"), (0, "release that wrote it")]
)
def test_another_schema_version_is_refused_naming_both(
    tmp_path: Path, version: int, advice: str
) -> None:
    marker = {"format": "regroup-store", "schema_version": version}
    (tmp_path / "store.json").write_text(json.dumps(marker))
    with pytest.raises(
        SchemaVersionError, match=rf"version {version}, this release reads version 1.*{advice}"
    ):
        open_store(str(tmp_path))


def test_elements_are_listed_with_their_progress(any_store: Store) -> None:
    element = fill(make(any_store), 0, 2)
    other = fill(make(any_store, name="other", inputs={"index": "b"}))
    other.finalise({})
    infos = {info.name: info for info in any_store.elements()}
    tiny = infos["tiny"]
    assert (tiny.kind, tiny.ref, tiny.rows) == ("features", element.ref, 10)
    assert (tiny.blocks_committed, tiny.blocks_planned, tiny.finalised) == (2, 3, False)
    assert infos["other"].finalised
    assert tiny.size_bytes == any_store.backend.size(f"features/{element.ref}") > 0
    assert any_store.elements("banks") == []
    with pytest.raises(StoreUsageError, match="unknown kind"):
        any_store.elements("feature")


def test_a_damaged_element_does_not_hide_the_others(any_store: Store) -> None:
    make(any_store)
    other = make(any_store, name="other", inputs={"index": "b"})
    any_store.backend.replace(f"features/{other.ref}/manifest.json", b"{")
    problems = {info.name: info.problem for info in any_store.elements()}
    assert problems["tiny"] is None
    assert "damaged" in str(problems["other"])


def test_folders_without_a_manifest_are_not_elements(any_store: Store) -> None:
    any_store.backend.create("features/half-0123456789abcdef/samples/x", b"")
    any_store.backend.create("features/notes.txt", seal({}))
    assert any_store.elements() == []
