"""Indexing: images are read by tasks, once, and again only where they may have changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from regroup_pipelines.configs.options import ClusterOptions
from regroup_pipelines.results.records import LedgerEntry
from regroup_pipelines.steps.indexing import index_dataset
from regroup_pipelines.steps.session import Session
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import encoded_digest
from regroup_store.format.store import open_store
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.kinds.listings import DIGEST_COLUMNS
from regroup_store.maintenance.verify import verify_store
from regroup_store.sources import open_source
from regroup_store.sources.imagefolder import ImageFolderSource
from tests.store.test_row_tables import list_into

IMAGES = 2500  # three blocks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files that nobody decodes: indexing only digests them."""
    root = tmp_path / "photos"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
    for number in range(IMAGES):
        content(root, number).write_bytes(b"image %d" % number)
    return root


def content(root: Path, number: int) -> Path:
    return root / ("cat" if number < IMAGES // 2 else "dog") / f"{number:04d}.png"


def index(store: Path, folder: Path) -> tuple[list[str], list[LedgerEntry]]:
    """Digests of the index, and what the session did."""
    with Session(ClusterOptions(store=str(store))) as session:
        made = index_dataset(session, f"imagefolder:{folder}", "photos")
        return made.rows()["digest"].to_pylist(), session.ledger


def refuse(self: ImageFolderSource, locators: list[str]) -> list[bytes | OSError]:
    assert not locators, "the driver reads images"
    return []


def test_images_are_digested_by_tasks_and_not_by_the_driver(
    local_ray: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFolderSource, "read", refuse)
    digests, (digesting, written) = index(tmp_path / "s", folder)
    assert digests == [encoded_digest(b"image %d" % number) for number in range(IMAGES)]
    assert (digesting.step, digesting.blocks, digesting.samples) == ("digest photos", 3, IMAGES)
    assert (written.step, written.blocks) == ("index", 1)
    assert list(verify_store(open_store(str(tmp_path / "s")))) == []


def test_a_second_run_reads_no_image_and_needs_no_ray(
    local_ray: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = index(tmp_path / "s", folder)
    monkeypatch.setattr(Session, "_join", lambda session: pytest.fail("Ray was joined"))
    monkeypatch.setattr(ImageFolderSource, "read", refuse)
    again, (digesting, written) = index(tmp_path / "s", folder)
    assert again == first
    assert (digesting.blocks, digesting.skipped, written.blocks) == (0, 3, 0)


def test_an_interrupted_indexing_goes_on_where_it_was(
    local_ray: None, folder: Path, tmp_path: Path
) -> None:
    whole, _ = index(tmp_path / "s", folder)
    for summary in (tmp_path / "s").glob("digests/*/summary.json"):
        summary.unlink()
    for commit in (tmp_path / "s").glob("digests/*/commits/00001.json"):
        commit.unlink()
    for manifest in (tmp_path / "s").glob("indexes/*/manifest.json"):
        manifest.unlink()
    again, (digesting, written) = index(tmp_path / "s", folder)
    assert again == whole
    assert (digesting.blocks, digesting.skipped, written.blocks) == (1, 2, 1)


def test_a_changed_image_is_read_again(local_ray: None, folder: Path, tmp_path: Path) -> None:
    index(tmp_path / "s", folder)
    content(folder, 7).write_bytes(b"IMAGE 7")  # as long as before
    os.utime(content(folder, 7), ns=(1, 1))
    digests, _ = index(tmp_path / "s", folder)
    assert digests[7] == encoded_digest(b"IMAGE 7")


def test_an_image_that_cannot_be_read_keeps_its_row_and_its_reason(
    local_ray: None, folder: Path, tmp_path: Path
) -> None:
    content(folder, 3).unlink()
    content(folder, 3).symlink_to("nowhere.png")
    digests, (digesting, written) = index(tmp_path / "s", folder)
    assert [row for row, digest in enumerate(digests) if not digest] == [3]
    assert (digesting.failed, written.failed) == (1, 1)
    element = BlockElement.open(open_store(str(tmp_path / "s")), "digests", "photos")
    table = element.read_table(0).to_pydict()
    assert table["status"][2:5] == ["ok", "failed", "ok"]
    assert table["error"][3] == "cat/0003.png cannot be read: No such file or directory"


def test_an_image_that_was_mended_without_a_trace_is_found(
    local_ray: None, folder: Path, tmp_path: Path
) -> None:
    """Such as one that a server did not give out for a while: its stamp is what it was."""
    store = open_store(str(tmp_path / "s"), create=True)
    source = open_source(f"imagefolder:{folder}")
    listing = list_into(store, "photos", source)
    element = BlockElement.create(store, listing.digests_spec(), {})
    rows = listing.rows(element.plan.span(0))
    columns = {
        "sample_id": rows["sample_id"], "status": ["failed"] * len(rows),
        "error": ["the server was away"] * len(rows), "label": rows["label"],
        "digest": [""] * len(rows),
    }  # fmt: skip
    element.write_block(0, {}, pa.table(columns, schema=DIGEST_COLUMNS), {})
    digests, (digesting, written) = index(tmp_path / "s", folder)
    assert digests == [encoded_digest(b"image %d" % number) for number in range(IMAGES)]
    assert (digesting.skipped, written.failed) == (1, 0)


def pictures(root: Path, deep: int) -> Path:
    """Three grey images, the last `deep` of which have 16 bits; and what is no sample."""
    for number in range(3):
        kind = np.uint16 if number >= 3 - deep else np.uint8
        (root / "cat").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), number, kind)).save(root / "cat" / f"{number}.png")
    (root / ".DS_Store").write_bytes(b"")
    (root / "cat" / "notes.txt").write_bytes(b"")
    return root


def test_what_is_no_sample_is_counted_in_the_log_and_in_the_manifest(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index(tmp_path / "s", pictures(tmp_path / "pictures", 0))
    said = capsys.readouterr()
    assert (
        "left out: 1 hidden or of the system (.DS_Store); 1 no image by its name (cat/notes.txt)"
        in said.out + said.err
    )
    made = SampleIndex.open(open_store(str(tmp_path / "s")), "photos")
    assert made.left_out == {
        "hidden or of the system": {"count": 1, "first": [".DS_Store"]},
        "no image by its name": {"count": 1, "first": ["cat/notes.txt"]},
    }
    assert not made.deep


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "as-of-before"])
def test_an_index_of_deep_images_declares_them(
    local_ray: None, tmp_path: Path, counted: bool
) -> None:
    folder = pictures(tmp_path / "pictures", 1)
    if not counted:  # by a release that did not count: some are looked at
        store = open_store(str(tmp_path / "s"), create=True)
        listing = list_into(store, "photos", open_source(f"imagefolder:{folder}"))
        element = BlockElement.create(store, listing.digests_spec(), {})
        rows = listing.rows(element.plan.span(0))
        read = [Path(folder, name).read_bytes() for name in rows["locator"].to_pylist()]
        columns = {
            "sample_id": rows["sample_id"], "status": ["ok"] * 3, "error": [None] * 3,
            "label": rows["label"], "digest": [encoded_digest(data) for data in read],
        }  # fmt: skip
        element.write_block(0, {}, pa.table(columns, schema=DIGEST_COLUMNS), {})
    index(tmp_path / "s", folder)
    assert SampleIndex.open(open_store(str(tmp_path / "s")), "photos").deep
