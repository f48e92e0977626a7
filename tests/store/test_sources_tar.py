"""Tar archives as tools make them: nothing in them is lost without a count or a sentence."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from regroup_store.errors import StoreUsageError
from regroup_store.sources import Source, open_source
from tests.store.imagenet_layouts import put, tar

Add = Callable[..., None]


def archive(path: Path, fill: Callable[[Add], None], format: int = tarfile.GNU_FORMAT) -> Source:
    """A dataset of one shard; `fill` is given what adds a file, or a link with its target."""
    with tarfile.open(path / "s.tar", "w", format=format) as made:

        def add(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, to, len(data)
            made.addfile(info, io.BytesIO(data))

        fill(add)
    return open_source(f"webdataset:{path}/s.tar")


def read(source: Source) -> dict[str, tuple[int, bytes | OSError]]:
    """Label and bytes by key."""
    rows = list(source.rows())
    found = source.read([row.locator for row in rows])
    keys = [row.sample_id.partition("#")[2] for row in rows]
    return {key: (row.label, data) for key, row, data in zip(keys, rows, found, strict=True)}


def test_hard_links_are_the_files_that_they_name(tmp_path: Path) -> None:
    def fill(add: Add) -> None:
        for key, label in (("a/1", b"3"), ("a/2", b"4")):
            add(f"./{key}.png", key.encode())
            add(f"./{key}.cls", label)
        add("b/3.png", kind=tarfile.LNKTYPE, to="./a/1.png")
        add("b/3.cls", kind=tarfile.LNKTYPE, to="./a/2.cls")
        add("b/4.png", kind=tarfile.LNKTYPE, to="b/3.png")  # a link to a link
        add("b/4.cls", b"7")

    source = archive(tmp_path, fill)
    assert read(source) == {
        "a/1": (3, b"a/1"), "a/2": (4, b"a/2"), "b/3": (4, b"a/1"), "b/4": (7, b"a/1"),
    }  # fmt: skip
    assert source.left_out.counts == {}


def test_symbolic_links_lead_to_earlier_and_later_files_and_through_folders(
    tmp_path: Path,
) -> None:
    def fill(add: Add) -> None:
        add("x/1.png", kind=tarfile.SYMTYPE, to="../z/deep/1.png")  # which comes later
        add("x/1.cls", b"0")
        add("x/2.png", kind=tarfile.SYMTYPE, to="../y/1.png")  # y is a link to a folder
        add("x/2.cls", b"1")
        add("y", kind=tarfile.SYMTYPE, to="z/deep")
        add("z/deep", kind=tarfile.DIRTYPE)
        add("z/deep/1.png", b"the image")
        add("z/deep/1.cls", b"2")

    source = archive(tmp_path, fill)
    assert read(source) == {
        "x/1": (0, b"the image"), "x/2": (1, b"the image"), "z/deep/1": (2, b"the image"),
    }  # fmt: skip
    assert source.left_out.counts == {"links to no file of the archive": 1}  # y, a folder


@pytest.mark.parametrize("to", ["/etc/passwd", "../../1.png", "gone.png", "9.png", "circle.png"])
def test_a_link_out_of_the_archive_is_counted_and_reads_nothing(to: str, tmp_path: Path) -> None:
    def fill(add: Add) -> None:
        add("1.png", b"one")
        add("1.cls", b"0")
        add("9.png", kind=tarfile.SYMTYPE, to=to)
        add("circle.png", kind=tarfile.SYMTYPE, to="9.png")

    source = archive(tmp_path, fill)
    assert read(source) == {"1": (0, b"one")}
    assert source.left_out.recorded() == {
        "links to no file of the archive": {"count": 2, "first": ["9.png", "circle.png"]}
    }


def test_a_sample_of_which_a_link_is_lost_is_refused(tmp_path: Path) -> None:
    def fill(add: Add) -> None:
        add("1.png", kind=tarfile.SYMTYPE, to="/data/1.png")
        add("1.cls", b"0")

    with pytest.raises(StoreUsageError, match="sample '1' has a label but no image"):
        read(archive(tmp_path, fill))


def test_a_link_to_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    def fill(add: Add) -> None:
        add("b.png", kind=tarfile.SYMTYPE, to="a.png")
        add("a.png", b"first")
        add("a.png", b"second")

    with pytest.raises(StoreUsageError, match=r"holds 'a\.png' twice, and a link to it"):
        read(archive(tmp_path, fill))


LONG = "folder/" * 20 + "x" * 150


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_long_link_targets(format: int, tmp_path: Path) -> None:
    def fill(add: Add) -> None:
        add(f"{LONG}.v1.JPEG", b"mask?")  # the key ends at the first dot: no image of it
        add(f"{LONG}.PNG", b"one")
        add(f"{LONG}.CLS", b"0")
        add("2.png", kind=tarfile.LNKTYPE, to=f"{LONG}.PNG")
        add("2.cls", b"1")

    source = archive(tmp_path, fill, format)
    assert read(source) == {LONG: (0, b"one"), "2": (1, b"one")}
    assert source.left_out.counts == {"neither image nor label": 1}


@pytest.mark.parametrize("zeros", [512, 1024, 10240, 1 << 21])
def test_archives_that_were_joined_are_read_to_the_end(zeros: int, tmp_path: Path) -> None:
    """As `cat` makes them, and blocks of zeros in the midst, where tar itself stops."""
    parts = [tar([(f"{key}.jpg", key.encode()), (f"{key}.cls", b"0")]) for key in "abc"]
    bare = [part.rstrip(b"\0") for part in parts]
    padded = [part + bytes(-len(part) % 512 + zeros) for part in bare]
    put(tmp_path / "s.tar", b"".join(padded))
    source = open_source(f"webdataset:{tmp_path}/s.tar")
    assert read(source) == {key: (0, key.encode()) for key in "abc"}


def test_what_follows_the_end_and_is_no_archive_is_damage(tmp_path: Path) -> None:
    put(tmp_path / "s.tar", tar([("a.jpg", b"a"), ("a.cls", b"0")]) + b"signed by nobody")
    with pytest.raises(StoreUsageError, match=r"s\.tar is cut short or damaged"):
        read(open_source(f"webdataset:{tmp_path}/s.tar"))


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar here")
@pytest.mark.parametrize("options", [("--format=gnu",), ("--format=posix", "--sparse-version=1.0"),
                                     ("--format=posix", "--sparse-version=0.1")])  # fmt: skip
def test_sparse_files_keep_their_holes(options: tuple[str, ...], tmp_path: Path) -> None:
    contents = {"a.bmp": b"B" * 5000 + bytes(1 << 20) + b"end", "b.png": bytes(1 << 18)}
    folder = tmp_path / "files"
    for name, data in contents.items():
        put((folder / name).with_suffix(".cls"), b"0")
        with (folder / name).open("wb") as file:  # holes, without which tar takes all as it is
            file.truncate(len(data))
            if data.strip(b"\0"):
                file.write(data[:5000])
                file.seek(len(data) - 3)
                file.write(data[-3:])
    names = ["-cf", str(tmp_path / "s.tar"), "-C", str(folder), "."]
    subprocess.run(["tar", "--sparse", *options, "--sort=name", *names], check=True)
    if (tmp_path / "s.tar").stat().st_size > 1 << 16:
        pytest.skip("this file system has no holes")
    source = open_source(f"webdataset:{tmp_path}/s.tar")
    found = [data for _, data in read(source).values()]
    assert found == [contents["a.bmp"], contents["b.png"]]


@pytest.mark.parametrize(("mode", "command"), [("w:gz", "gunzip"), ("w:bz2", "bunzip2"),
                                               ("w:xz", "unxz")])  # fmt: skip
def test_a_compressed_archive_says_what_unpacks_it(mode: str, command: str, tmp_path: Path) -> None:
    put(tmp_path / "s.tar", tar([("a.jpg", b"a"), ("a.cls", b"0")], mode))
    with pytest.raises(StoreUsageError, match=f"run {command} on it first"):
        read(open_source(f"webdataset:{tmp_path}/s.tar"))


def test_everything_else_of_a_shard_is_counted(tmp_path: Path) -> None:
    def fill(add: Add) -> None:
        add("__meta__/info.json", b"{}")
        add("._1.jpg", b"\0\5\x16\7")
        add("1.jpg", b"one")
        add("1.cls", b"0")
        add("1.webp", b"the same once more")
        add("1.txt", b"a caption")
        add("README", b"")
        add("pipe", kind=tarfile.FIFOTYPE)
        add("__MACOSX/1.jpg", b"")
        add(".cache/2.jpg", b"")

    source = archive(tmp_path, fill)
    assert read(source) == {"1": (0, b"one")}
    assert source.left_out.counts == {
        "hidden or of the system": 4,
        "of another format beside the image": 1,
        "neither image nor label": 2,
        "devices and pipes": 1,
    }
    assert "2 neither image nor label (1.txt, README)" in source.left_out.sentence()


def test_a_shard_without_a_sample_is_counted(tmp_path: Path) -> None:
    put(tmp_path / "s-0.tar", tar([("a.jpg", b"a"), ("a.cls", b"0")]))
    put(tmp_path / "s-1.tar", bytes(10240))
    source = open_source(f"webdataset:{tmp_path}/s-*.tar")
    assert len(list(source.rows())) == 1
    assert source.left_out.recorded() == {
        "shards without a sample": {"count": 1, "first": ["s-1.tar"]}
    }


FORMATS = ["bmp", "gif", "tif", "tiff", "ppm", "pgm", "jp2", "webp", "JPE", "jfif"]


@pytest.mark.parametrize("extension", FORMATS)
def test_every_format_that_is_decoded_is_a_sample(extension: str, tmp_path: Path) -> None:
    put(tmp_path / "s.tar", tar([(f"a.{extension}", b"a"), ("a.cls", b"0")]))
    assert read(open_source(f"webdataset:{tmp_path}/s.tar")) == {"a": (0, b"a")}
    put(tmp_path / "d" / "cat" / f"a.{extension}", b"a")
    assert len(list(open_source(f"imagefolder:{tmp_path}/d").rows())) == 1


LABELLED = [("a.jpg", b"x"), ("a.cls", b"1"), ("a.fine.txt", b"7\n"),
            ("a.json", b'{"label": 2, "Coarse": 3}')]  # fmt: skip


@pytest.mark.parametrize(("column", "label"), [("fine.txt", 7), ("Coarse", 3), ("label", 2)])
def test_a_label_column_is_an_extension_or_a_field(column: str, label: int, tmp_path: Path) -> None:
    put(tmp_path / "s.tar", tar(LABELLED))
    source = open_source(f"webdataset[{column}]:{tmp_path}/s.tar")
    assert [row.label for row in source.rows()] == [label]
    again = open_source(source.spec)  # as a worker does
    assert [row.label for row in again.rows()] == [label]


def test_a_label_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "s.tar", tar(LABELLED))
    with pytest.raises(StoreUsageError, match=r"counted from 0 under wnid \(--label-column"):
        list(open_source(f"webdataset[wnid]:{tmp_path}/s.tar").rows())
    with pytest.raises(StoreUsageError, match="only datasets of the kinds parquet and webdataset"):
        open_source(f"imagefolder[label]:{tmp_path}")
