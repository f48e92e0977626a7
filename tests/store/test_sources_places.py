"""Where datasets lie: names of any kind are found, and whatever is not there is a sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from regroup.images.depth import FORMATS
from regroup_store.errors import StoreError, StoreUsageError
from regroup_store.sources import LOCATED, Source, open_source
from regroup_store.sources.files import EXTENSIONS
from tests.store.imagenet_layouts import put, tar
from tests.store.test_sources import write_parquet

HIDDEN = [".DS_Store", ".git", ".ipynb_checkpoints"]
NAMES = ["[v1] data", "a*b", "what?", "100% #1", "naïve 数据", "a::b", "{x}", "[]", "~", "[!a]"]
SHARD = tar([("a.jpg", b"a"), ("a.cls", b"0")])


def refused(spec: str) -> str:
    with pytest.raises(StoreUsageError) as caught:
        list(open_source(spec).rows())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_folders_and_files_of_any_name(name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    write_parquet(place / "p.parquet", [b"a"], [0])
    put(place / "s.tar", SHARD)
    put(place / "images" / name / "1.png", b"a")
    for spec in (
        f"parquet:{place}/*.parquet",
        f"parquet:{place}/p.parquet",
        f"webdataset:{place}/s.tar",
        f"imagefolder:{place}/images",
    ):
        source = open_source(spec)
        (row,) = source.rows()
        assert open_source(source.spec).read([row.locator]) == [b"a"]


@pytest.mark.parametrize("name", ["part[0].parquet", "all*.parquet", "is it?.parquet"])
def test_a_file_whose_name_is_a_pattern_is_that_file_alone(name: str, tmp_path: Path) -> None:
    write_parquet(tmp_path / name, [b"a"], [0])
    write_parquet(tmp_path / "part0.parquet", [b"b"], [0])
    write_parquet(tmp_path / "all of it.parquet", [b"b"], [0])
    write_parquet(tmp_path / "is it2.parquet", [b"b"], [0])
    assert [row.locator for row in open_source(f"parquet:{tmp_path}/{name}").rows()] == [
        f"{name}#0"
    ]


def test_a_set_in_brackets_is_a_pattern_where_nothing_has_that_name(tmp_path: Path) -> None:
    for number in range(3):
        write_parquet(tmp_path / f"p{number}.parquet", [b"a"], [0])
    found = open_source(f"parquet:{tmp_path}/p[01].parquet").rows()
    assert [row.locator for row in found] == ["p0.parquet#0", "p1.parquet#0"]


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "photos" / "cat" / "1.png", b"a")
    assert open_source("imagefolder:~/photos").spec == f"imagefolder:{tmp_path}/photos"


def pattern(folder: Path) -> str:
    return f"parquet:{folder}/data"


def missing(folder: Path) -> str:
    return f"parquet:{folder}/nowhere/deeper/*.parquet"


def unmatched(folder: Path) -> str:
    return f"webdataset:{folder}/data/*.tar"


def below_a_file(folder: Path) -> str:
    return f"webdataset:{folder}/data/notes.txt/*.tar"


def dangling(folder: Path) -> str:
    (folder / "link.parquet").symlink_to(folder / "gone.parquet")
    return f"parquet:{folder}/link.parquet"


def too_long(folder: Path) -> str:
    return f"parquet:{folder}/{'x' * 300}/*.parquet"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (pattern, r"no file matches.*\(that is a folder, which holds notes\.txt\)"),
        (missing, r"no file matches; name files, as in .* holds data\)"),
        (unmatched, r"no file matches.*/data holds notes\.txt\)"),
        (below_a_file, r"no file matches.*/data holds notes\.txt\)"),
        (dangling, r"no file matches.* holds data, link\.parquet\)"),
        (too_long, "no file matches"),
    ],
)
def test_files_that_are_not_there_say_what_is(
    make: Callable[[Path], str], said: str, tmp_path: Path
) -> None:
    put(tmp_path / "data" / "notes.txt", b"")
    with pytest.raises(StoreUsageError, match=said):
        open_source(make(tmp_path))


@pytest.mark.parametrize("kind", ["imagefolder:", "imagenet:val:"])
def test_a_folder_that_is_not_there_says_what_is(kind: str, tmp_path: Path) -> None:
    put(tmp_path / "data" / "notes.txt", b"")
    assert "there is no such folder; name the folder " in (said := refused(f"{kind}{tmp_path}/x"))
    assert said.endswith(f"({tmp_path} holds data)")
    assert "it is a file; name" in refused(f"{kind}{tmp_path}/data/notes.txt")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert "there is no such folder" in refused(f"{kind}{tmp_path}/link")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    put(tmp_path / "shut" / "cat" / "1.png", b"a")
    (tmp_path / "shut").chmod(0)
    try:
        assert "Permission denied; check that this user may" in refused(
            f"imagefolder:{tmp_path}/shut"
        )
    finally:
        (tmp_path / "shut").chmod(0o700)


def test_splits_are_no_classes(tmp_path: Path) -> None:
    for split in ("train", "Val"):
        put(tmp_path / split / "cat" / "1.png", b"a")
    assert "its folders are splits (Val, train), not classes" in refused(f"imagefolder:{tmp_path}")


def test_what_systems_and_notebooks_leave_is_neither_class_nor_image(tmp_path: Path) -> None:
    images = ["x/1.png", "x/deep/2.PNG", "y/1.JPEG"]
    clutter = [".git/HEAD", ".ipynb_checkpoints/0.png", "__MACOSX/x/1.png", "@eaDir/1.png",
               "x/.DS_Store", "x/._1.png", "x/.ipynb_checkpoints/1-checkpoint.png", "y/Thumbs.db",
               "y/desktop.ini", ".DS_Store"]  # fmt: skip
    others = ["README.md", "stray.png", "x/notes.txt", "x/1"]
    for name in (*images, *clutter, *others):
        put(tmp_path / name, b"a")
    (tmp_path / "y" / "up").symlink_to(tmp_path / "y", target_is_directory=True)
    source = open_source(f"imagefolder:{tmp_path}")
    assert source.class_names == ("x", "y")
    assert [row.locator for row in source.rows()] == images
    assert source.left_out.recorded() == {
        "beside the class folders": {"count": 2, "first": ["README.md", "stray.png"]},
        "hidden or of the system": {
            "count": 10,
            "first": [".DS_Store", ".git", ".ipynb_checkpoints"],
        },
        "links back to a folder above": {"count": 1, "first": ["y/up"]},
        "no image by its name": {"count": 2, "first": ["x/1", "x/notes.txt"]},
    }
    assert list(source.rows())
    assert source.left_out.counts["no image by its name"] == 2  # listed twice, counted once
    assert "10 hidden or of the system (.DS_Store, .git, .ipynb_checkpoints, ...)" in (
        source.left_out.sentence()
    )


def test_hidden_entries_of_imagenets_archives_and_folders_are_counted(tmp_path: Path) -> None:
    classes = tar([("n01440764_1.JPEG", b"a"), ("._n01440764_1.JPEG", b""), ("list.txt", b"")])
    put(tmp_path / "ILSVRC2012_img_train.tar",
        tar([("._n01440764.tar", b""), ("n01440764.tar", classes)]))  # fmt: skip
    source = open_source(f"imagenet:train:{tmp_path}")
    assert [row.sample_id for row in source.rows()] == ["n01440764/n01440764_1.JPEG"]
    assert source.left_out.counts == {"hidden or of the system": 2, "no image by its name": 1}
    put(tmp_path / "val" / "n01440764" / "1.JPEG", b"a")
    put(tmp_path / "val" / ".cache" / "1.JPEG", b"a")
    source = open_source(f"imagenet:val:{tmp_path}")
    assert [row.label for row in source.rows()] == [0]
    assert source.left_out.counts == {"hidden or of the system": 1}


def test_extensions_are_pillows_of_the_formats_that_are_decoded() -> None:
    Image.init()
    known = {ext for ext, name in Image.registered_extensions().items() if name in FORMATS}
    assert set(EXTENSIONS) == known


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError("refused"), TimeoutError("no answer"), RuntimeError("gone")]
)
def test_a_place_elsewhere_that_does_not_answer_is_named(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unanswered(*_: object) -> Source:
        raise error

    monkeypatch.setitem(LOCATED, "parquet", unanswered)
    with pytest.raises(StoreError) as caught:
        open_source("parquet:https://photos.example/a.parquet")
    assert str(caught.value) == (
        f"parquet:https://photos.example/a.parquet: cannot be reached: {error}; check the address "
        "and the network, then run the same command again"
    )
    with pytest.raises(type(error)):
        open_source("parquet:a.parquet")
