"""Invalid copies of ImageNet: one sentence says what was found and what was expected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from regroup_store.errors import StoreUsageError
from regroup_store.sources import open_source
from tests.store import imagenet_layouts as layouts
from tests.store.imagenet_layouts import TRAIN, TRAIN_TAR, VAL, VAL_TAR, Make, put, tar


def refused(spec: str) -> str:
    with pytest.raises(StoreUsageError) as caught:
        list(open_source(spec).rows())
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("spec", ["imagenet:/data", "imagenet:test:/data", "imagenet:train:"])
def test_a_split_must_be_named(spec: str) -> None:
    assert "write imagenet:train:PATH or imagenet:val:PATH" in refused(spec)


def test_a_wrong_root_says_what_is_there_and_what_should_be(tmp_path: Path) -> None:
    assert "there is no such folder" in refused(f"imagenet:val:{tmp_path / 'none'}")
    layouts.train_in_folders(tmp_path)
    said = refused(f"imagenet:val:{tmp_path}")
    assert f"expected the folder 'val' or {VAL_TAR}" in said
    assert said.endswith("found train")
    assert "found README.txt, n01440764, n03000684, ..." in refused(
        f"imagenet:val:{tmp_path}/train"
    )


def test_a_class_folder_that_is_no_class_of_imagenet(tmp_path: Path) -> None:
    layouts.train_in_folders(tmp_path)
    put(tmp_path / "train" / "n99999999" / "x.JPEG", b"x")
    said = refused(f"imagenet:train:{tmp_path}")
    assert "class folder 'n99999999' is none of the 1000 wnids" in said
    put(tmp_path / "train" / "cat" / "x.JPEG", b"x")
    assert "class folder 'cat'" in refused(f"imagenet:train:{tmp_path}")
    assert "(nor are 1 others)" in refused(f"imagenet:train:{tmp_path}")


def test_class_folders_half_unpacked(tmp_path: Path) -> None:
    layouts.train_in_folders(tmp_path)
    put(tmp_path / "train" / "n01443537.tar", b"")
    said = refused(f"imagenet:train:{tmp_path}")
    assert "half unpacked: 3 class folders beside 1 archives that are not (n01443537.tar)" in said
    (tmp_path / "train" / "n01443537.tar").unlink()
    (tmp_path / "train" / "n01443537").mkdir()
    assert "class folder 'n01443537' has no image" in refused(f"imagenet:train:{tmp_path}")


def test_a_folder_without_classes(tmp_path: Path) -> None:
    put(tmp_path / "train" / "notes.txt", b"x")
    assert "holds no class folder; found notes.txt" in refused(f"imagenet:train:{tmp_path}")
    put(tmp_path / "val" / "notes.txt", b"x")
    assert "val holds no image" in refused(f"imagenet:val:{tmp_path}")


def test_validation_images_half_sorted_into_class_folders(tmp_path: Path) -> None:
    layouts.val_in_folders(tmp_path)
    put(tmp_path / "val" / layouts.val_name(9), b"x")
    said = refused(f"imagenet:val:{tmp_path}")
    assert f"1 images ({layouts.val_name(9)}) beside 3 class folders" in said


def test_a_validation_image_in_two_classes(tmp_path: Path) -> None:
    layouts.val_in_folders(tmp_path)
    name = layouts.val_name(1)
    put(tmp_path / "val" / "n01440764" / name, b"x")
    said = refused(f"imagenet:val:{tmp_path}")
    assert f"n01440764/{name} and n03888257/{name} are the same image in two classes" in said


@pytest.mark.parametrize("cut", ["a third", "before the last mark", "within a header"])
def test_a_training_archive_that_is_cut_short(cut: str, tmp_path: Path) -> None:
    whole = layouts.tar_of_tars(TRAIN)
    inner = len(tar(TRAIN["n03000684"].items()))
    length = {"a third": 512 + inner // 3, "before the last mark": 3 * (512 + inner)}
    put(tmp_path / TRAIN_TAR, whole[: length.get(cut, 2 * (512 + inner) + 100)])
    said = refused(f"imagenet:train:{tmp_path}")
    assert f"{TRAIN_TAR} is cut short or damaged" in said
    named = {"a third": "n03000684.tar", "before the last mark": "n03888257.tar"}
    assert named.get(cut, "n01440764.tar") in said
    ends = f"ends at byte {512 + inner} of {512 + inner // 3}"  # found at once, by its header
    assert (ends in said) == (cut == "a third")


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5])
def test_a_class_archive_that_is_cut_short_within(blocks: int, tmp_path: Path) -> None:
    """In every block of its three files: the archive around it is whole."""
    inner = {wnid: tar(named.items()) for wnid, named in TRAIN.items()}
    inner["n01440764"] = inner["n01440764"][: blocks * 512]
    put(tmp_path / TRAIN_TAR, tar((f"{wnid}.tar", data) for wnid, data in inner.items()))
    said = refused(f"imagenet:train:{tmp_path}")
    assert f"n01440764.tar in {TRAIN_TAR} is cut short or damaged" in said


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    data = bytearray(tar(layouts.flat(VAL).items()))
    second = data.index(b"ILSVRC2012_val_", 512)
    data[second + 148 : second + 156] = b"damaged!"  # the checksum
    put(tmp_path / VAL_TAR, bytes(data))
    layouts.devkit(tmp_path)
    assert f"{VAL_TAR} is cut short or damaged" in refused(f"imagenet:val:{tmp_path}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no archive at all" * 99, "is not a plain (uncompressed) tar archive"),
        (b"", "is not a plain (uncompressed) tar archive"),
        (tar([("n01440764.tar", tar([("a.JPEG", b"x")]))], "w:gz"), "is not a plain"),
        (tar([]), "holds no class archive"),
        (tar([("n01440764.JPEG", b"x")]), "holds 'n01440764.JPEG'; expected an archive of class"),
        (tar([("n99999999.tar", tar([("a.JPEG", b"x")]))]), "class archive 'n99999999' is none of"),
        (tar([("n01440764.tar", tar([]))]), "holds no image"),
        (tar([("n01440764.tar", b"")]), "is cut short or damaged"),
        (tar([("n01440764.tar", b"x" * 9999)]), "is cut short or damaged"),
        (tar([("n01440764.tar", tar([("a.JPEG", b"x")]))] * 2), "holds n01440764.tar twice"),
        (
            tar([("n01440764.tar", tar([("a.JPEG", b"x"), ("b/a.JPEG", b"y")]))]),
            f"n01440764.tar in {TRAIN_TAR} holds 'a.JPEG' twice",
        ),
    ],
)  # fmt: skip
def test_a_training_archive_of_something_else(content: bytes, said: str, tmp_path: Path) -> None:
    put(tmp_path / TRAIN_TAR, content)
    assert said in refused(f"imagenet:train:{tmp_path}")


@pytest.mark.parametrize("make", [layouts.val_flat_with_devkit, layouts.val_in_archive])
def test_validation_images_without_labels(make: Make, tmp_path: Path) -> None:
    make(tmp_path)
    (meta,) = tmp_path.rglob("meta.mat")
    meta.unlink()
    assert "is there without meta.mat" in refused(f"imagenet:val:{tmp_path}")
    (truth,) = tmp_path.rglob("*ground_truth.txt")
    truth.unlink()
    said = refused(f"imagenet:val:{tmp_path}")
    assert "nothing labels them: put ILSVRC2012_validation_ground_truth.txt and meta.mat" in said
    assert "LOC_val_solution.csv" in said


PAIRS = [("ILSVRC2012_val_00000001", "n01440764"), ("ILSVRC2012_val_00000002", "n03888257")]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("ground_truth", layouts.truth([1, 2, 2]), "5 images, but ILSVRC2012_validation_"
         "ground_truth.txt labels 3: it has no label for 'ILSVRC2012_val_00000004'"),
        ("ground_truth", layouts.truth([1] * 7), "labels 7: 'ILSVRC2012_val_00000006' is missing"),
        ("ground_truth", layouts.truth([1, 2, 4, 1]), "line 3 of .* is '4', which meta.mat has"),
        ("ground_truth", layouts.truth([1, 1001]), "line 2 of .* is '1001', which meta.mat has no"),
        ("ground_truth", layouts.truth(["tench"]), "line 1 of .* is 'tench'"),
        ("meta", b"no matrix", "meta.mat is not the devkit's"),
        ("solution", b"id,label\n", "begins with 'id,label'; expected 'ImageId,PredictionString'"),
        ("solution", b"", "begins with 'nothing'"),
        ("solution", layouts.kaggle(PAIRS), "5 images, but LOC_val_solution.csv labels 2"),
        ("solution", layouts.kaggle([*PAIRS, PAIRS[0]]), "labels 'ILSVRC2012_val_00000001' twice"),
        ("solution", layouts.kaggle([("a", "n99999999")]), "line 2 .* 'n99999999' is none of"),
        ("solution", b"ImageId,PredictionString\na\n", "line 2 .* is 'a'; expected 'image,wnid"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit(file: str, content: bytes, said: str, tmp_path: Path) -> None:
    make = layouts.val_of_kaggle if file == "solution" else layouts.val_flat_with_devkit
    make(tmp_path)
    (path,) = tmp_path.rglob(f"*{file}*")
    path.write_bytes(content)
    assert re.search(said, refused(f"imagenet:val:{tmp_path}"))


def test_validation_images_that_are_there_twice(tmp_path: Path) -> None:
    layouts.val_flat_with_devkit(tmp_path)
    put(tmp_path / "val" / layouts.val_name(3).replace("JPEG", "jpg"), b"x")
    assert "'ILSVRC2012_val_00000003' is there 2 times" in refused(f"imagenet:val:{tmp_path}")
    twice = [*layouts.flat(VAL).items(), (layouts.val_name(2), b"x")]
    put(tmp_path / "tar" / VAL_TAR, tar(twice))
    layouts.devkit(tmp_path / "tar")
    assert "'ILSVRC2012_val_00000002' is there 2 times" in refused(f"imagenet:val:{tmp_path}/tar")


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (b"no archive", "cannot be unpacked"),
        (tar([("data/readme.txt", b"x")], "w:gz"), "holds no ILSVRC2012_validation_ground_truth"),
    ],
)
def test_a_devkit_of_something_else(packed: bytes, said: str, tmp_path: Path) -> None:
    layouts.val_in_archive_with_packed_devkit(tmp_path)
    put(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", packed)
    assert said in refused(f"imagenet:val:{tmp_path}")
