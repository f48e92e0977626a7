"""Image sources: rows, bytes and order; every bad input is one sentence."""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn

from regroup_store.errors import StoreUsageError
from regroup_store.sources import Source, SourceRow, open_source


def read_all(source: Source) -> list[bytes | OSError]:
    return source.read([row.locator for row in source.rows()])


@pytest.mark.parametrize(
    "spec",
    ["cifar", "", "digits:", "digits:test", "imagefolder", "imagefolder:", "parquet:", "s3://b/x"],
)
def test_unknown_spec_is_refused_with_the_choices(spec: str) -> None:
    with pytest.raises(StoreUsageError, match="digits:train"):
        open_source(spec)


@pytest.mark.parametrize("spec", ["imagefolder:nonsense://x/y", "parquet:nonsense://x/*.parquet"])
def test_unknown_protocol_is_refused(spec: str) -> None:
    with pytest.raises(StoreUsageError, match="nonsense"):
        open_source(spec)


# digits


def test_digits_are_scikit_learns_scans_as_pgm() -> None:
    source = open_source("digits")
    rows = list(source.rows())
    assert (source.spec, source.class_names) == ("digits", tuple("0123456789"))
    stamp = f"scikit-learn {sklearn.__version__}"
    assert (len(rows), rows[0]) == (1797, SourceRow("digits-0000", 0, "digits-0000", stamp))
    first = read_all(source)[0]
    # The first row of scikit-learn's first scan is 0 0 5 13 9 1 0 0, of at most 16.
    assert first[:19] == b"P5\n8 8\n255\n" + bytes([0, 0, 80, 207, 143, 16, 0, 0])  # type: ignore[index]


def test_digits_splits_part_the_scans_and_hold_every_class() -> None:
    specs = ("digits", "digits:train", "digits:val")
    whole, train, val = (list(open_source(spec).rows()) for spec in specs)
    assert (len(train), len(val)) == (1198, 599)
    assert sorted(train + val, key=lambda row: row.sample_id) == whole
    assert [row.sample_id for row in val[:2]] == ["digits-0002", "digits-0005"]
    for rows, least in ((train, 100), (val, 50)):
        counts = Counter(row.label for row in rows)
        assert set(counts) == set(range(10))
        assert min(counts.values()) >= least


@pytest.mark.parametrize("locator", ["digits-0002", "digits-9999", "../digits-0000"])
def test_digits_refuse_a_locator_of_another_split(locator: str) -> None:
    with pytest.raises(StoreUsageError, match="digits:train has no image"):
        open_source("digits:train").read([locator])


# imagefolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("cat/b.PNG", "cat/a.jpeg", "cat/deep/er/c.tiff", "cat/notes.txt", "Ant/z.JPEG"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (root / "README.png").write_bytes(b"not in a class folder")
    return root


def test_imagefolder_rows_are_sorted_and_named_by_relative_path(folder: Path) -> None:
    source = open_source(f"imagefolder:{folder}")
    assert source.class_names == ("Ant", "cat")
    paths = ["Ant/z.JPEG", "cat/a.jpeg", "cat/b.PNG", "cat/deep/er/c.tiff"]
    found = [(row.sample_id, row.label, row.locator) for row in source.rows()]
    assert found == [(p, int(p > "b"), p) for p in paths]
    assert read_all(source) == [path.encode() for path in paths]
    assert source.read(paths[2:0:-1]) == [b"cat/b.PNG", b"cat/a.jpeg"]


def test_imagefolder_spec_is_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    source = open_source("imagefolder:photos/")
    assert source.spec == f"imagefolder:{folder}"
    monkeypatch.chdir("/")
    assert list(source.rows()) == list(open_source(source.spec).rows())


def test_imagefolder_follows_links_but_not_in_circles(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.jpg").write_bytes(b"linked")
    (folder / "dog").symlink_to(elsewhere, target_is_directory=True)
    (folder / "Ant" / "link.jpg").symlink_to(elsewhere / "x.jpg")
    (folder / "cat" / "deep" / "up").symlink_to(folder / "cat", target_is_directory=True)
    source = open_source(f"imagefolder:{folder}")
    locators = [row.locator for row in source.rows()]
    assert locators[:2] == ["Ant/link.jpg", "Ant/z.JPEG"]
    assert locators[2:] == ["cat/a.jpeg", "cat/b.PNG", "cat/deep/er/c.tiff", "dog/x.jpg"]
    assert source.read(["dog/x.jpg", "Ant/link.jpg"]) == [b"linked", b"linked"]


def stamps(source: Source) -> dict[str, str]:
    return {row.locator: row.stamp for row in source.rows()}


def test_imagefolder_stamps_change_with_the_file_and_with_what_a_link_points_to(
    folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"one")
    (folder / "cat" / "link.jpg").symlink_to(target)
    source = open_source(f"imagefolder:{folder}")
    before = stamps(source)
    assert stamps(source) == before
    # The same sizes as before: only the time of change tells.
    target.write_bytes(b"two")
    os.utime(target, ns=(1, 1))
    (folder / "cat" / "b.PNG").write_bytes(b"cat/B.PNG")
    os.utime(folder / "cat" / "b.PNG", ns=(2, 2))
    after = stamps(source)
    assert {path for path in after if after[path] != before[path]} == {"cat/link.jpg", "cat/b.PNG"}
    target.unlink()
    assert stamps(source)["cat/link.jpg"] == "missing"


def test_parquet_stamps_are_those_of_the_file(shards: Path) -> None:
    source = open_source(f"parquet:{shards}/*.parquet")
    before = stamps(source)
    os.utime(shards / "b.parquet", ns=(1, 1))
    changed = {path for path, stamp in stamps(source).items() if stamp != before[path]}
    assert changed == {f"b.parquet#{row}" for row in range(3)}


def test_imagefolder_returns_the_error_of_an_unreadable_file(folder: Path) -> None:
    (folder / "cat" / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    source = open_source(f"imagefolder:{folder}")
    assert "cat/dangling.jpg" in [row.locator for row in source.rows()]
    good, bad = source.read(["cat/b.PNG", "cat/dangling.jpg"])
    assert good == b"cat/b.PNG"
    assert isinstance(bad, OSError)
    assert str(bad) == "cat/dangling.jpg cannot be read: No such file or directory"


@pytest.mark.parametrize("locator", ["../secret.jpg", "cat/../../secret.jpg", "/secret", "", "a\0"])
def test_imagefolder_refuses_a_locator_that_leaves_the_root(folder: Path, locator: str) -> None:
    (folder.parent / "secret.jpg").write_bytes(b"secret")
    with pytest.raises(StoreUsageError, match="not a path inside"):
        open_source(f"imagefolder:{folder}").read(["cat/b.PNG", locator])


def test_imagefolder_without_a_folder_or_classes(tmp_path: Path) -> None:
    (tmp_path / "flat.jpg").write_bytes(b"x")
    with pytest.raises(StoreUsageError, match="missing: there is no such folder"):
        open_source(f"imagefolder:{tmp_path / 'missing'}")
    with pytest.raises(StoreUsageError, match="no such folder"):
        open_source(f"imagefolder:{tmp_path / 'flat.jpg'}")
    with pytest.raises(StoreUsageError, match="no class folder in it"):
        open_source(f"imagefolder:{tmp_path}")


def test_imagefolder_class_without_images_is_named(folder: Path) -> None:
    (folder / "bee").mkdir()
    (folder / "bee" / "notes.txt").write_bytes(b"x")
    with pytest.raises(StoreUsageError, match="class folder 'bee' has no image"):
        list(open_source(f"imagefolder:{folder}").rows())


def test_imagefolder_name_that_is_not_utf8(folder: Path) -> None:
    (folder / "cat" / "caf\udce9.jpg").write_bytes(b"x")
    with pytest.raises(StoreUsageError, match="not UTF-8"):
        list(open_source(f"imagefolder:{folder}").rows())


# parquet


def write_parquet(
    path: Path,
    images: list[bytes | None],
    labels: list[int | None],
    names: list[str] | None = None,
    column: str = "image",
    group: int = 2,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    structs = [{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(images)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "id": list(range(len(images))),
            column: pa.array(structs, kind),
            "label": pa.array(labels, pa.int64()),
        }
    )
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        recorded = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": recorded})
    pq.write_table(table, path, row_group_size=group)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "b.parquet", [b"b0", b"b1", b"b2"], [1, 0, 1], ["cat", "dog"])
    write_parquet(
        tmp_path / "a.parquet", [b"a0", b"a1", b"a2", b"a3", b"a4"], [0] * 5, ["cat", "dog"]
    )
    return tmp_path


def test_parquet_rows_run_by_file_name_and_row(shards: Path) -> None:
    source = open_source(f"parquet:{shards}/*.parquet")
    assert source.class_names == ("cat", "dog")
    rows = list(source.rows())
    ids = [f"a.parquet#{i}" for i in range(5)] + [f"b.parquet#{i}" for i in range(3)]
    assert [row.sample_id for row in rows] == [row.locator for row in rows] == ids
    assert [row.label for row in rows] == [0, 0, 0, 0, 0, 1, 0, 1]
    assert read_all(source) == [b"a0", b"a1", b"a2", b"a3", b"a4", b"b0", b"b1", b"b2"]


def test_parquet_keeps_the_order_asked_for_and_reads_each_row_group_once(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []
    whole = pq.ParquetFile.iter_batches

    def counted(self: object, rows: int, row_groups: list[int], **options: object) -> object:
        read.append(row_groups)
        return whole(self, rows, row_groups, **options)

    source = open_source(f"parquet:{shards}/*.parquet")
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    asked = [
        "a.parquet#4",
        "b.parquet#1",
        "a.parquet#0",
        "b.parquet#0",
        "a.parquet#1",
        "a.parquet#4",
    ]
    assert source.read(asked) == [b"a4", b"b1", b"a0", b"b0", b"a1", b"a4"]
    assert read == [[0], [2], [0]]
    assert source.read(["b.parquet#1"]) == [b"b1"]  # the row group that was kept
    assert len(read) == 3
    assert source.read(["a.parquet#0"]) == [b"a0"]  # the same row group of another file


def test_parquet_spec_is_absolute(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shards)
    source = open_source("parquet:*.parquet")
    assert source.spec == f"parquet:{shards}/*.parquet"


def test_parquet_without_names_counts_the_classes_of_all_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [b"x"], [1])
    write_parquet(tmp_path / "b.parquet", [b"y"], [2], column="image")
    source = open_source(f"parquet:{tmp_path}/*.parquet")
    assert source.class_names == ("0", "1", "2")
    assert [row.label for row in source.rows()] == [1, 2]


def test_parquet_binary_column_named_img(tmp_path: Path) -> None:
    table = pa.table({"img": [b"x", b"y"], "label": pa.array([0, 1], pa.int8())})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_all(open_source(f"parquet:{tmp_path}/a.parquet")) == [b"x", b"y"]


def test_parquet_null_bytes_are_that_rows_error(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [b"x", None, b"z"], [0, 0, 1])
    first, second, third = read_all(open_source(f"parquet:{tmp_path}/a.parquet"))
    assert (first, third) == (b"x", b"z")
    assert isinstance(second, OSError)
    assert str(second) == "a.parquet#1 has no image bytes"


def test_parquet_damaged_row_group_is_the_error_of_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, [b"x" * 999, b"y" * 999, b"z" * 999], [0, 0, 1])
    source = open_source(f"parquet:{path}")
    rows = list(source.rows())
    column = pq.read_metadata(path).row_group(0).column(1)
    assert column.path_in_schema == "image.bytes"
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    *damaged, intact = source.read([row.locator for row in rows])
    assert intact == b"z" * 999
    for row, error in zip(rows, damaged, strict=False):
        assert isinstance(error, OSError)
        assert str(error).startswith(f"{row.locator} cannot be read: ")


@pytest.mark.parametrize(
    "locator",
    ["c.parquet#0", "a.parquet#5", "a.parquet#-1", "a.parquet", "../a.parquet#0", "#0", ""],
)
def test_parquet_refuses_a_locator_of_no_row(shards: Path, locator: str) -> None:
    with pytest.raises(StoreUsageError, match="has no row"):
        open_source(f"parquet:{shards}/*.parquet").read(["a.parquet#0", locator])


@pytest.mark.parametrize(("label", "row"), [(-1, 1), (None, 0), (2, 2), (10**9, 0)])
def test_parquet_bad_label_names_the_row(tmp_path: Path, label: int | None, row: int) -> None:
    labels: list[int | None] = [0, 0, 0]
    labels[row] = label
    write_parquet(tmp_path / "a.parquet", [b"x"] * 3, labels, ["cat", "dog"])
    with pytest.raises(StoreUsageError, match=rf"a\.parquet#{row}: label {label} "):
        list(open_source(f"parquet:{tmp_path}/a.parquet").rows())


def test_parquet_label_that_is_no_class_index_creates_no_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [b"x"], [1_000_000])
    with pytest.raises(StoreUsageError, match=r"a\.parquet#0: label 1000000 is not a class index"):
        list(open_source(f"parquet:{tmp_path}/a.parquet").rows())


def test_parquet_missing_columns_say_what_was_found(tmp_path: Path) -> None:
    table = pa.table({"picture": [b"x"], "mask": [b"y"], "label": [0]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(StoreUsageError, match="picture: binary, mask: binary, label: int64"):
        open_source(f"parquet:{tmp_path}/a.parquet")
    pq.write_table(pa.table({"image": [b"x"], "label": ["cat"]}), tmp_path / "b.parquet")
    with pytest.raises(StoreUsageError, match=r"integer column 'label'.*label: string"):
        open_source(f"parquet:{tmp_path}/b.parquet")


def test_parquet_nothing_usable(tmp_path: Path) -> None:
    with pytest.raises(StoreUsageError, match="no file matches"):
        open_source(f"parquet:{tmp_path}/*.parquet")
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(StoreUsageError, match=r"a\.parquet is not a readable Parquet file"):
        open_source(f"parquet:{tmp_path}/*.parquet")
    write_parquet(tmp_path / "empty.parquet", [], [])
    with pytest.raises(StoreUsageError, match="no rows"):
        list(open_source(f"parquet:{tmp_path}/empty.parquet").rows())


def test_parquet_files_must_have_unique_names_and_agree_on_classes(tmp_path: Path) -> None:
    for folder, names in (("x", ["cat", "dog"]), ("y", ["dog", "cat"])):
        write_parquet(tmp_path / folder / "a.parquet", [b"x"], [0], names)
    with pytest.raises(StoreUsageError, match="same name"):
        open_source(f"parquet:{tmp_path}/*/a.parquet")
    (tmp_path / "y" / "a.parquet").rename(tmp_path / "y" / "b.parquet")
    with pytest.raises(StoreUsageError, match="name their classes differently"):
        list(open_source(f"parquet:{tmp_path}/*/*.parquet").rows())


def test_sources_travel_to_workers(folder: Path, shards: Path) -> None:
    for spec in ("digits:val", f"imagefolder:{folder}", f"parquet:{shards}/*.parquet"):
        source = open_source(spec)
        copy = pickle.loads(pickle.dumps(source))  # noqa: S301 - what Ray does
        assert read_all(copy) == read_all(source)


# real data


@pytest.mark.shared_data
def test_cifar10(shared_data: Path) -> None:
    source = open_source(f"parquet:{shared_data}/cifar10/test-*.parquet")
    rows = list(source.rows())
    assert (len(rows), len(source.class_names)) == (10_000, 10)
    assert source.class_names[0] == "airplane"
    assert Counter(row.label for row in rows) == dict.fromkeys(range(10), 1000)
    (data,) = source.read([rows[-1].locator])
    assert isinstance(data, bytes)
    assert data.startswith(b"\x89PNG")


@pytest.mark.shared_data
def test_imagenette(shared_data: Path) -> None:
    source = open_source(f"imagefolder:{shared_data}/imagenette-224/val")
    rows = list(source.rows())
    assert source.class_names[0] == "n01440764"
    assert Counter(row.label for row in rows) == dict.fromkeys(range(10), 20)
    (data,) = source.read([rows[0].locator])
    assert isinstance(data, bytes)
    assert data.startswith(b"\xff\xd8")
