"""Datasets in a bucket equal those in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regroup_store.backends.s3 import RETRY_VARIABLE, s3_client
from regroup_store.errors import StoreError, StoreUsageError
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.sources import open_source
from tests.objectstore.conftest import Command
from tests.objectstore.proxy import Proxy
from tests.objectstore.server import BUCKET
from tests.store.imagenet_layouts import LAYOUTS, Make, put, tar

HARD_NAMES = ("a b.pgm", "100%.pgm", "a#b.pgm", "é.PGM", "q?x=1&y.pgm")


def scans(count: int) -> list[tuple[int, bytes]]:
    """Label and bytes of the first scans of the embedded digits."""
    source = open_source("digits")
    rows = list(source.rows())[:count]
    data = source.read([row.locator for row in rows])
    return [
        (row.label, item) for row, item in zip(rows, data, strict=True) if isinstance(item, bytes)
    ]


def imagefolder(folder: Path) -> Path:
    """Twelve scans in class folders, some of them deeper, and files that are not images."""
    for number, (label, data) in enumerate(scans(12)):
        below = folder / f"class-{label}" / ("deeper" if number % 5 == 0 else "")
        below.mkdir(parents=True, exist_ok=True)
        (below / f"scan-{number}.pgm").write_bytes(data)
    (folder / "class-0" / "notes.txt").write_text("no image")
    (folder / "README").write_text("no class")
    return folder


def parquet(folder: Path) -> Path:
    """Two files of six scans, in row groups of four."""
    names = {"info": {"features": {"label": {"names": [f"digit {i}" for i in range(10)]}}}}
    folder.mkdir(parents=True)
    for part in range(2):
        chosen = scans(12)[part * 6 : part * 6 + 6]
        columns = {
            "image": [{"bytes": data, "path": None} for _, data in chosen],
            "label": [label for label, _ in chosen],
        }
        table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(names)})
        pq.write_table(table, folder / f"test-{part}.parquet", row_group_size=4)
    return folder


def webdataset(folder: Path) -> Path:
    """Two shards of six scans."""
    for part in range(2):
        files = []
        for number, (label, data) in enumerate(scans(12)[part * 6 : part * 6 + 6]):
            files += [(f"{number}.cls", str(label).encode()), (f"{number}.png", data)]
        put(folder / f"test-{part}.tar", tar(files))
    return folder


def upload(folder: Path, uri: str) -> str:
    """Put every file of `folder` below `uri`."""
    client = s3_client(BUCKET, uri.removeprefix(f"s3://{BUCKET}/"))
    for path in folder.rglob("*"):
        if path.is_file():
            obstore.put(client, path.relative_to(folder).as_posix(), path.read_bytes())
    return uri


KINDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "imagefolder": (imagefolder, ""),
    "parquet": (parquet, "/test-*.parquet"),
    "webdataset": (webdataset, "/test-{0..1}.tar"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_and_bytes_as_in_a_folder(kind: str, uri: str, tmp_path: Path) -> None:
    make, glob = KINDS[kind]
    folder = make(tmp_path / "data")
    there = open_source(f"{kind}:{upload(folder, uri)}{glob}")
    here = open_source(f"{kind}:{folder}{glob}")
    assert there.spec == f"{kind}:{uri}{glob}"
    assert there.class_names == here.class_names
    found, expected = (list(source.rows()) for source in (there, here))
    assert [(r.sample_id, r.label, r.locator) for r in found] == [
        (r.sample_id, r.label, r.locator) for r in expected
    ]
    assert len(found) == 12
    locators = [row.locator for row in found][::-1]
    assert there.read(locators) == here.read(locators)
    assert open_source(there.spec).read(locators[:1]) == here.read(locators[:1])


@pytest.mark.parametrize(
    ("split", "make"), [(split, make) for split, makers in LAYOUTS.items() for make in makers]
)
def test_imagenet_in_a_bucket(split: str, make: Make, uri: str, tmp_path: Path) -> None:
    make(tmp_path / "data")
    there = open_source(f"imagenet:{split}:{upload(tmp_path / 'data', uri)}/")
    here = open_source(f"imagenet:{split}:{tmp_path / 'data'}")
    assert there.spec == f"imagenet:{split}:{uri}"
    found, expected = (list(source.rows()) for source in (there, here))
    assert [(r.sample_id, r.label, r.locator) for r in found] == [
        (r.sample_id, r.label, r.locator) for r in expected
    ]
    locators = [row.locator for row in found][::-1]
    assert open_source(there.spec).read(locators) == here.read(locators)


def test_one_file_and_a_trailing_slash(uri: str, tmp_path: Path) -> None:
    upload(parquet(tmp_path / "data"), uri)
    assert len(list(open_source(f"parquet:{uri}/test-1.parquet").rows())) == 6
    upload(imagefolder(tmp_path / "images"), f"{uri}/images")
    assert open_source(f"imagefolder:{uri}/images/").spec == f"imagefolder:{uri}/images"


def test_names_that_a_url_would_not_take(uri: str) -> None:
    client = s3_client(BUCKET, uri.removeprefix(f"s3://{BUCKET}/"))
    for name in HARD_NAMES:
        obstore.put(client, f"class/{name}", name.encode())
    source = open_source(f"imagefolder:{uri}")
    rows = list(source.rows())
    assert sorted(row.locator for row in rows) == sorted(f"class/{name}" for name in HARD_NAMES)
    read = source.read([row.locator for row in rows])
    assert read == [row.locator.removeprefix("class/").encode() for row in rows]


def test_an_object_that_is_gone_is_an_unreadable_image(uri: str, tmp_path: Path) -> None:
    source = open_source(f"imagefolder:{upload(imagefolder(tmp_path / 'data'), uri)}")
    locator = next(iter(source.rows())).locator
    client = s3_client(BUCKET, uri.removeprefix(f"s3://{BUCKET}/"))
    obstore.delete(client, locator)
    (found,) = source.read([locator])
    assert isinstance(found, OSError)
    assert str(found) == f"{locator} cannot be read: there is no such object"


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_fails_makes_no_image_unreadable(
    kind: str, proxy: Proxy, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again; for good the block fails, and no failed row is committed."""
    make, glob = KINDS[kind]
    spec = f"{kind}:{upload(make(tmp_path / 'data'), uri)}{glob}"
    source = open_source(spec)
    locators = [row.locator for row in source.rows()]
    proxy.fail("busy", times=3)
    assert all(isinstance(data, bytes) for data in source.read(locators))
    assert proxy.failed() == 3
    monkeypatch.setenv(RETRY_VARIABLE, "0.2")
    source = open_source(spec)
    proxy.fail("dropped", method="GET")
    with pytest.raises(StoreError, match="failed") as caught:
        source.read(locators)
    assert caught.value.exit_status == 1
    proxy.fail("dropped")
    with pytest.raises(StoreError) as caught:
        open_source(spec)
    assert caught.value.exit_status == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    ["imagefolder:s3://", "imagefolder:s3://no-such-bucket/x", "parquet:s3://no-such-bucket/*.parquet",
     "imagefolder:{uri}/none", "parquet:{uri}/none-*.parquet", "parquet:{uri}/none.parquet",
     "webdataset:s3://no-such-bucket/*.tar", "webdataset:{uri}/none-0.tar", "imagenet:val:s3://",
     "imagenet:train:s3://no-such-bucket", "imagenet:val:{uri}/none"],
)  # fmt: skip
def test_what_is_not_there_is_a_usage_error(spec: str, uri: str) -> None:
    with pytest.raises(StoreUsageError) as caught:
        open_source(spec.format(uri=uri))
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_index_and_extract(kind: str, uri: str, tmp_path: Path, command: Command) -> None:
    make, glob = KINDS[kind]
    dataset = f"{kind}:{upload(make(tmp_path / 'data'), uri + '/data')}{glob}"
    outcome = command(
        "extract", "--store", f"{uri}/store", "--dataset", dataset, "--model", "digits-cnn",
        "--weights", "random", "--json",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    (step,) = (s for s in outcome.json["steps"] if s["step"].startswith("extract"))
    assert (step["samples"], step["failed"]) == (12, 0)
    (info,) = (e for e in open_store(f"{uri}/store").elements("features"))
    samples = BlockElement.open(open_store(f"{uri}/store"), "features", info.ref).samples()
    assert samples["status"].to_pylist() == ["ok"] * 12
