"""ImageNet's classes, and the class of each validation image."""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
import zlib
from collections import Counter
from functools import cache
from importlib.resources import files
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from regroup_store.errors import StoreUsageError
from regroup_store.sources.files import read_whole
from regroup_store.sources.limits import TooLargeError
from regroup_store.sources.source import error_message
from regroup_store.sources.tar_entries import HeaderFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WNID_COUNT = 1000
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
KAGGLE = "LOC_val_solution.csv"
DEVKIT = "ILSVRC2012_devkit_t12"
DEVKIT_FOLDERS = ("", "/data", f"/{DEVKIT}", f"/{DEVKIT}/data")
# Of a devkit's file, in bytes once unpacked; the real ones have at most 2 MB.
LARGEST_FILE = 1 << 26


@cache
def wnids() -> tuple[str, ...]:
    """The 1000 classes of ILSVRC 2012 in the order of every network's class indices."""
    file = files("regroup_store").joinpath("sources/imagenet_wnids.txt")
    return tuple(file.read_text("ascii").split())


@cache
def class_indices() -> Mapping[str, int]:
    """The class index of each wnid."""
    return {wnid: index for index, wnid in enumerate(wnids())}


def check_wnids(found: Iterable[str], where: str, what: str) -> None:
    """Refuse names that are not classes of ILSVRC 2012.

    Args:
        found: the names.
        where: begins the error.
        what: the names stand for, in the error.

    Raises:
        StoreUsageError: one of them is not a wnid.
    """
    strange = [name for name in found if name not in class_indices()]
    if strange:
        raise StoreUsageError(
            f"{where}: {what} {strange[0]!r} is none of the 1000 wnids of ILSVRC 2012 such as "
            f"{wnids()[0]!r}{_more(strange)}; for other classes use imagefolder:PATH"
        )


def _more(strange: Sequence[str]) -> str:
    return f" (nor are {len(strange) - 1} others)" if len(strange) > 1 else ""


def validation_labels(fs: Any, folders: Sequence[str], spec: str) -> tuple[str, dict[str, int]]:
    """The file that labels the validation images, and the class index of each by its stem.

    Each of `folders` is searched for the devkit (unpacked or not), then for Kaggle's table.

    Raises:
        StoreUsageError: neither exists, or it cannot be read or names an unknown class.
    """
    for folder in folders:
        if truth := _devkit_file(fs, folder, TRUTH):
            return TRUTH, _devkit_labels(truth, _devkit_file(fs, folder, META), spec)
        if (table := _small_file(fs, f"{folder}/{KAGGLE}")) is not None:
            return KAGGLE, _kaggle_labels(table, spec)
    raise StoreUsageError(
        f"{spec}: the validation images are in no class folders, and nothing labels them: put "
        f"{TRUTH} and {META} (or {DEVKIT}.tar.gz), or Kaggle's {KAGGLE}, into {folders[0]}"
    )


def check_labelled(images: Iterable[str], labels: Mapping[str, int], spec: str, file: str) -> None:
    """Refuse images (by stem) and labels that are not of the same set.

    Raises:
        StoreUsageError: an image occurs twice, has no label, or is missing for its label.
    """
    counts = Counter(images)
    twice = [stem for stem, count in counts.items() if count > 1]
    if twice:
        raise StoreUsageError(f"{spec}: image {twice[0]!r} is there {counts[twice[0]]} times")
    expected = f"{spec}: {len(counts)} images, but {file} labels {len(labels)}"
    if strange := sorted(counts.keys() - labels.keys()):
        raise StoreUsageError(f"{expected}: it has no label for {strange[0]!r}")
    if missing := sorted(labels.keys() - counts.keys()):
        raise StoreUsageError(
            f"{expected}: {missing[0]!r} is missing; unpack all images (for a part of them, use "
            "class folders)"
        )


def _small_file(fs: Any, path: str) -> bytes | None:
    """Content of a file; None where it does not exist."""
    try:
        return read_whole(fs, path, LARGEST_FILE) if fs.isfile(path) else None
    except TooLargeError as error:
        raise StoreUsageError(f"{path} {error.reason}; put the original there") from error
    except OSError as error:
        raise StoreUsageError(f"{path} cannot be read: {error_message(error)}") from error


def _devkit_file(fs: Any, folder: str, name: str) -> bytes | None:
    for inside in DEVKIT_FOLDERS:
        if (data := _small_file(fs, f"{folder}{inside}/{name}")) is not None:
            return data
    archive = f"{folder}/{DEVKIT}.tar.gz"
    packed = _small_file(fs, archive)
    return None if packed is None else _unpacked(packed, archive, name)


def _unpacked(packed: bytes, archive: str, name: str) -> bytes:
    """One file of the devkit as downloaded; read, never extracted."""
    try:
        stream = cast("IO[bytes]", gzip.GzipFile(fileobj=io.BytesIO(packed)))
        unpacked = HeaderFile(stream, archive, LARGEST_FILE)
        with tarfile.open(fileobj=unpacked, mode="r:") as tar:  # type: ignore[call-overload]
            for member in tar:
                if member.name.rpartition("/")[2] == name and (file := tar.extractfile(member)):
                    return bytes(file.read(LARGEST_FILE))
    except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise StoreUsageError(f"{archive} cannot be unpacked: {error_message(error)}") from error
    raise StoreUsageError(f"{archive} holds no {name}; expected the devkit of ILSVRC 2012")


def _devkit_labels(truth: bytes, meta: bytes | None, spec: str) -> dict[str, int]:
    """Line i of the ground truth is the ILSVRC2012_ID of image i, counted from 1."""
    if meta is None:
        raise StoreUsageError(
            f"{spec}: {TRUTH} is there without {META}, which says which wnid each number is"
        )
    known = _synsets(meta, spec)
    labels: dict[str, int] = {}
    for number, line in enumerate(truth.decode("ascii", "replace").split(), start=1):
        if line not in known:
            raise StoreUsageError(
                f"{spec}: line {number} of {TRUTH} is {line!r}, which {META} has no class for; "
                f"it knows {len(known)} classes"
            )
        labels[f"ILSVRC2012_val_{number:08d}"] = known[line]
    return labels


def _synsets(meta: bytes, spec: str) -> dict[str, int]:
    """Class index by ILSVRC2012_ID, as text; the ids above 1000 are of groups of classes."""
    from scipy.io import loadmat

    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        named = {str(int(one["ILSVRC2012_ID"])): str(one["WNID"]) for one in synsets}
    except Exception as error:  # loadmat raises nearly anything on other files
        raise StoreUsageError(
            f"{spec}: {META} is not the devkit's (it has no table 'synsets' of ILSVRC2012_ID and "
            f"WNID): {error_message(error)}"
        ) from error
    classes = {number: wnid for number, wnid in named.items() if int(number) <= WNID_COUNT}
    check_wnids(classes.values(), f"{spec}: {META}", "class")
    return {number: class_indices()[wnid] for number, wnid in classes.items()}


def _kaggle_labels(table: bytes, spec: str) -> dict[str, int]:
    """Rows of `ImageId,PredictionString`; the string is `wnid x y x y` for each box."""
    rows = list(csv.reader(io.StringIO(table.decode("utf-8", "replace"))))
    if not rows or rows[0] != ["ImageId", "PredictionString"]:
        found = ",".join(rows[0]) if rows else "nothing"
        raise StoreUsageError(
            f"{spec}: {KAGGLE} begins with {found[:80]!r}; expected 'ImageId,PredictionString'"
        )
    labels: dict[str, int] = {}
    for number, row in enumerate(rows[1:], start=2):
        stem, wnid = _kaggle_row(row, f"{spec}: line {number} of {KAGGLE}")
        if stem in labels:
            raise StoreUsageError(f"{spec}: {KAGGLE} labels {stem!r} twice")
        labels[stem] = class_indices()[wnid]
    return labels


def _kaggle_row(row: list[str], where: str) -> tuple[str, str]:
    """Image and wnid of one row."""
    if len(row) != 2 or not row[0] or not row[1].split():
        raise StoreUsageError(f"{where} is {','.join(row)[:80]!r}; expected 'image,wnid x y x y'")
    wnid = row[1].split()[0]
    check_wnids([wnid], where, "class")
    return row[0], wnid
