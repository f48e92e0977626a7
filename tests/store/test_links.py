"""Nothing outside of a store in a folder is read, written or deleted: links are never followed."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import GzipCodec

from regroup_store.backends.local import MOST_BYTES
from regroup_store.errors import LinkError, StoreError
from regroup_store.format.element import BlockElement
from regroup_store.format.store import Store, open_store
from regroup_store.maintenance.removal import plan_removal, remove
from regroup_store.maintenance.repair import apply_repair, plan_repairs
from regroup_store.maintenance.verify import verify_store
from tests.store.elements import FLOATS, INTS, fill, make

STRANGER = "banks/photos-0123456789abcdef"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with a file, which must stay what it is."""
    (tmp_path / "outside" / "d").mkdir(parents=True)
    (tmp_path / "outside" / "d" / "y").write_text("mine")
    return tmp_path / "outside"


def untouched(outside: Path) -> bool:
    files = [path for path in outside.rglob("*") if path.is_file()]
    return files == [outside / "d" / "y"] and files[0].read_text() == "mine"


def linked(store: Store, key: str, target: Path) -> Path:
    path = Path(store.uri, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


@pytest.mark.parametrize("key", ["runs/x/run.json", "runs/x", "runs"])
def test_no_call_follows_a_link_at_the_end_in_the_midst_or_at_the_start(
    store: Store, outside: Path, key: str
) -> None:
    (outside / "d" / "y").rename(outside / "d" / "run.json")
    target = {"runs/x/run.json": outside / "d" / "run.json", "runs/x": outside / "d"}
    linked(store, key, target.get(key, outside))
    backend, file = store.backend, "runs/x/run.json" if key != "runs" else "runs/d/run.json"
    for call in (
        lambda: backend.read(file),
        lambda: backend.exists(file),
        lambda: backend.create(file, b"theirs"),
        lambda: backend.replace(file, b"theirs"),
        lambda: backend.write(file, b"theirs"),
        lambda: backend.sync([file]),
        lambda: backend.lock(file, 0).__enter__(),
        lambda: backend.children(f"{file}/c"),
        lambda: backend.prune(f"{file}/c"),
    ):
        with pytest.raises(LinkError, match=f"{key} of the store .* is a link"):
            call()
    if key != file:
        with pytest.raises(LinkError):
            backend.delete(file)
    backend.prefetch([file])
    assert backend.links() == [key]
    assert (outside / "d" / "run.json").read_text() == "mine"


def test_a_link_is_removed_itself_and_listed_like_a_file(store: Store, outside: Path) -> None:
    linked(store, "runs/x", outside)
    linked(store, "runs/y", outside / "d" / "y")
    assert store.backend.keys("runs") == ["runs/x", "runs/y"]
    assert store.backend.size("runs") < 1000
    for key in store.backend.keys("runs"):
        store.backend.delete(key)
    assert store.backend.keys("runs") == []
    assert untouched(outside)


def test_a_store_may_itself_be_a_link(store: Store, tmp_path: Path) -> None:
    """It is what the user named."""
    fill(make(store))
    (tmp_path / "here").symlink_to(store.uri)
    again = open_store(str(tmp_path / "here"))
    assert BlockElement.open(again, "features", "tiny").read_table(1).num_rows == 4
    assert [f for f in verify_store(again) if f.level != "note"] == []


def test_removal_keeps_an_element_that_is_a_link(store: Store, outside: Path) -> None:
    linked(store, STRANGER, outside)
    plan = plan_removal(store)
    assert [member.location.folder for member in plan.unknown] == [STRANGER]
    assert plan.unreferenced == ()
    assert untouched(outside)


def test_removal_of_an_element_removes_its_links_and_not_what_they_point_to(
    store: Store, outside: Path
) -> None:
    element = fill(make(store))
    element.finalise({})
    folder = f"features/{element.ref}"
    linked(store, f"{folder}/more", outside)
    linked(store, f"{folder}/samples/part-00009.parquet", outside / "d" / "y")
    (member,) = plan_removal(store).unreferenced
    remove(store, member)
    assert not Path(store.uri, folder).exists()
    assert untouched(outside)


@pytest.mark.parametrize("name", ["manifest.json", "commits", f"{FLOATS}/c", "samples", "."])
def test_verify_names_a_link_and_repair_removes_nothing_behind_it(
    store: Store, outside: Path, name: str
) -> None:
    element = fill(make(store))
    element.finalise({})
    path = Path(store.uri, "features", element.ref, name)
    moved = outside.parent / "moved"
    path.rename(moved)
    path.symlink_to(moved)
    before = {p: p.read_bytes() for p in moved.rglob("*") if p.is_file()}
    found = [f for f in verify_store(store) if f.level != "note"]
    key = path.relative_to(store.uri).as_posix()
    assert ("unreadable", key) in [(f.level, f.path) for f in found if f.what == "link"]
    for each in plan_repairs(store, found):
        apply_repair(store, each)
    assert {p: p.read_bytes() for p in moved.rglob("*") if p.is_file()} == before


def test_values_that_zarr_reads_are_not_read_through_a_link(store: Store, tmp_path: Path) -> None:
    """Other codecs than this release's are read by zarr's own client."""
    element = make(store)
    folder = Path(store.uri, "features", element.ref)
    array = zarr.create_array(
        folder / INTS, shape=(10, 4), chunks=(4, 4), dtype="int32", fill_value=-1,
        compressors=GzipCodec(), overwrite=True,
    )  # fmt: skip
    fill(element)
    assert BlockElement.open(store, "features", "tiny").read_array(INTS, 0).shape == (4, 4)
    assert array.shape == (10, 4)
    chunk = folder / INTS / "c" / "0" / "0"
    chunk.rename(tmp_path / "chunk")
    chunk.symlink_to(tmp_path / "chunk")
    with pytest.raises(LinkError):
        BlockElement.open(store, "features", "tiny").read_array(INTS, 0)
    assert np.asarray(array[4:8]).shape == (4, 4)


def test_a_pipe_and_a_file_beyond_all_sizes_are_no_files_of_a_store(store: Store) -> None:
    """A pipe would never end; the large one takes no space, and would take 1 TB of memory."""
    import os

    Path(store.uri, "runs").mkdir()
    os.mkfifo(Path(store.uri, "runs", "pipe"))
    with Path(store.uri, "runs", "large").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    element = make(store)
    metadata = Path(store.uri, "features", element.ref, INTS, "zarr.json")
    metadata.unlink()
    os.mkfifo(metadata)
    with pytest.raises(StoreError, match="is no file of a store"):
        BlockElement.open(store, "features", "tiny")._array(element.arrays[1])
    for name in ("pipe", "large"):
        with pytest.raises(StoreError, match="is no file of a store"):
            store.backend.read(f"runs/{name}")
