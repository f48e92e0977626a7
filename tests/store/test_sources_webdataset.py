"""WebDataset shards: images and labels by key, read by offset; errors in one sentence."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from regroup_store.errors import StoreUsageError
from regroup_store.sources import Source, open_source
from tests.store.imagenet_layouts import put, tar


def read_all(source: Source) -> list[bytes | OSError]:
    return source.read([row.locator for row in source.rows()])


def fields(**named: object) -> bytes:
    return json.dumps(named).encode()


FIRST = [
    ("README", b"no sample"),
    ("a/b.c/0001.jpg", b"one" * 999),
    ("a/b.c/0001.cls", b"3\n"),
    ("a/b.c/0001.seg.png", b"a mask"),
    ("./a/0002.json", fields(label=0, wnid="n01440764")),
    ("./a/0002.txt", b"a caption"),
    ("./a/0002.JPEG", b"two"),
    ("a/0003.png", b""),
    ("a/0003.json", fields(cls=1)),
    ("a/0004.json", fields(label=9)),  # the number in .cls goes first
    ("a/0004.cls", b" 2 "),
    ("a/0004.png", b"four"),
]
SECOND = [("x" * 150 + "é.jpg", b"five"), ("x" * 150 + "é.cls", b"5")]  # a long name: a pax header
EXPECTED = [
    ("s-08.tar#a/b.c/0001", 3, b"one" * 999),
    ("s-08.tar#a/0002", 0, b"two"),
    ("s-08.tar#a/0003", 1, b""),
    ("s-08.tar#a/0004", 2, b"four"),
    ("s-09.tar#" + "x" * 150 + "é", 5, b"five"),
]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    put(tmp_path / "s-09.tar", tar(SECOND))
    put(tmp_path / "s-08.tar", tar(FIRST))
    return tmp_path


@pytest.mark.parametrize("glob", ["*.tar", "s-{08..09}.tar", "s-0[89].tar", "s-{0..0}{8..9}.tar"])
def test_samples_run_by_shard_and_as_they_lie_in_it(glob: str, shards: Path) -> None:
    source = open_source(f"webdataset:{shards}/{glob}")
    assert [(row.sample_id, row.label) for row in source.rows()] == [row[:2] for row in EXPECTED]
    assert read_all(source) == [data for *_, data in EXPECTED]
    assert source.class_names == ("0", "1", "2", "3", "4", "5")


def test_one_shard_of_a_glob(shards: Path) -> None:
    source = open_source(f"webdataset:{shards}/s-09.tar")
    assert [row.label for row in source.rows()] == [5]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_shards_of_any_tar_format_with_folders_and_links(format: int, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w", format=format) as archive:
        for name, kind in (("a", tarfile.DIRTYPE), ("a/9.jpg", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for name, data in (("a/1.jpg", b"x" * 513), ("a/1.cls", b"0")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert read_all(open_source(f"webdataset:{tmp_path}/s.tar")) == [b"x" * 513]


def test_they_travel_to_workers_and_are_read_from_several_threads(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shards)
    source = open_source("webdataset:s-{08..09}.tar")
    wanted = list(zip([row.locator for row in source.rows()], read_all(source), strict=True)) * 9
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301 - what Ray does
    monkeypatch.chdir("/")
    monkeypatch.setattr(
        "regroup_store.sources.tar_entries.tarfile.open", None
    )  # nothing is scanned
    for worker in (copy, open_source(source.spec)):
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(worker.read, [[locator] for locator, _ in wanted]))
        assert found == [[data] for _, data in wanted]


def test_they_lie_elsewhere_than_on_this_machine(shards: Path) -> None:
    memory, place = fsspec.filesystem("memory"), f"/{shards.name}-webdataset"
    for path in shards.iterdir():
        memory.pipe_file(f"{place}/{path.name}", path.read_bytes())
    try:
        for glob in ("*.tar", "s-{08..09}.tar"):
            source = open_source(f"webdataset:memory:/{place}/{glob}")
            assert [row.sample_id for row in source.rows()] == [row[0] for row in EXPECTED]
            assert read_all(source) == [data for *_, data in EXPECTED]
    finally:
        memory.rm(place, recursive=True)


def test_stamps_are_those_of_the_shard(shards: Path) -> None:
    source = open_source(f"webdataset:{shards}/*.tar")
    before = {row.sample_id: row.stamp for row in source.rows()}
    os.utime(shards / "s-09.tar", ns=(1, 1))
    after = {row.sample_id: row.stamp for row in source.rows()}
    assert [name for name in before if after[name] != before[name]] == [EXPECTED[-1][0]]


@pytest.mark.parametrize(
    "locator", ["s-07.tar#0+1", "../s-08.tar#0+1", "s-08.tar#0+9999999", "s-08.tar", "s-08.tar#a"]
)  # fmt: skip
def test_a_locator_of_no_shard_or_outside_of_it_is_refused(locator: str, shards: Path) -> None:
    put(shards / "s-07.tar", tar(SECOND))
    with pytest.raises(StoreUsageError, match="has no image"):
        open_source(f"webdataset:{shards}/s-{{08..09}}.tar").read([locator])


def test_a_forged_size_is_not_read_into_memory(shards: Path) -> None:
    with (shards / "s-09.tar").open("r+b") as file:
        file.truncate(1 << 40)  # a hole, which takes no space
    (found,) = open_source(f"webdataset:{shards}/s-09.tar").read([f"s-09.tar#0+{1 << 40}"])
    assert isinstance(found, OSError)
    assert "has 1099511627776 bytes, above the limit of 256 MB" in str(found)


def refused(spec: str) -> str:
    with pytest.raises(StoreUsageError) as caught:
        list(open_source(spec).rows())
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


BAD_LABELS = [
    ("cls", b"cat"), ("cls", b"-1"), ("cls", b"1.5"), ("cls", b""), ("cls", b"1000000"),
    ("cls", b"\xff"), ("json", b"3"), ("json", b"{"), ("json", fields(name="cat")),
    ("json", fields(label="3")), ("json", fields(label=True)), ("json", fields(label=-1)),
    ("json", fields(label=1.0)), ("json", b"[" * 99_999),
]  # fmt: skip


@pytest.mark.parametrize(("extension", "label"), BAD_LABELS)
def test_a_bad_label_names_shard_and_key(extension: str, label: bytes, tmp_path: Path) -> None:
    put(tmp_path / "s.tar", tar([("a/1.jpg", b"x"), (f"a/1.{extension}", label)]))
    said = refused(f"webdataset:{tmp_path}/s.tar")
    assert f"s.tar: sample 'a/1': its {extension} is " in said
    assert "expected a class index counted from 0" in said
    assert len(said) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([("1.jpg", b"x"), ("1.cls", b"0"), ("2.jpg", b"x"), ("3.jpg", b"x"), ("3.cls", b"0")],
         r"s.tar: sample '2' has an image but no label \(cls json\) next to it"),
        ([("1.jpg", b"x"), ("1.txt", b"0")], "sample '1' has an image but no label"),
        ([("1.cls", b"0"), ("2.jpg", b"x"), ("2.cls", b"0")],
         r"s.tar: sample '1' has a label but no image \(jpg jpeg png webp ...\) next to it"),
        ([("2.jpg", b"x"), ("2.cls", b"0"), ("1.json", b"{}")], "sample '1' has a label but no"),
        ([("1.jpg", b"x"), ("2.jpg", b"x"), ("1.cls", b"0")], "sample '1' has an image but no"),
        ([("1.jpg", b"x"), ("1.png", b"x"), ("1.cls", b"0")], "sample '1' has 2 images: jpg png"),
        ([("1.jpg", b"x"), ("1.cls", b"0"), ("1.jpg", b"x")], "sample '1' has its jpg twice"),
        ([("1.jpg", b"x"), ("1.cls", b"0" * (1 << 25))], "its cls has 33554432 bytes"),
        ([("caf\udce9.jpg", b"x"), ("caf\udce9.cls", b"0")], "is not UTF-8"),
        ([("README", b"x"), ("seg.mask.png", b"x")], "the shards hold no sample"),
        ([], "the shards hold no sample"),
    ],
)  # fmt: skip
def test_samples_that_are_not_whole(
    files: list[tuple[str, bytes]], said: str, tmp_path: Path
) -> None:
    put(tmp_path / "s.tar", tar(files))
    assert re.search(said, refused(f"webdataset:{tmp_path}/s.tar"))


def test_a_shard_that_is_cut_short_or_compressed(shards: Path) -> None:
    whole = (shards / "s-08.tar").read_bytes()
    for length in (512, 600, 1024, 1536, 5000):
        put(shards / "s-08.tar", whole[:length])
        assert "s-08.tar is cut short or damaged" in refused(f"webdataset:{shards}/*.tar")
    put(shards / "s-08.tar", tar(FIRST, "w:gz"))
    assert "not a plain (uncompressed) tar archive" in refused(f"webdataset:{shards}/*.tar")


def test_shards_that_are_not_there_or_not_told_apart(shards: Path) -> None:
    assert "no file matches; name files" in refused(f"webdataset:{shards}/none-*.tar")
    assert "no file matches s-10.tar" in refused(f"webdataset:{shards}/s-{{08..10}}.tar")
    assert "{9..8} is not a range" in refused(f"webdataset:{shards}/s-{{9..8}}.tar")
    assert "is not a range" in refused(f"webdataset:{shards}/s-{{0..999999999}}.tar")
    put(shards / "more" / "s-08.tar", tar(FIRST))
    assert "have the same name" in refused(f"webdataset:{shards}/**/s-08.tar")


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    """A scan keeps nothing of the files that it passed."""
    import tracemalloc

    def peak(samples: int) -> int:
        files = ((f"{i // 2:06d}.{'cls' if i % 2 else 'jpg'}", b"1") for i in range(2 * samples))
        put(tmp_path / "s.tar", tar(files))
        source = open_source(f"webdataset:{tmp_path}/s.tar")
        tracemalloc.start()
        assert sum(1 for _ in source.rows()) == samples
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)  # what is loaded once
    assert peak(2000) < peak(200) + 100_000
