"""A few classes of ImageNet in each layout that users have, with synthetic bytes."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from scipy.io import savemat

# Three of the 1000, by the index that networks give them; not in this order in any archive.
CLASSES = {"n03000684": 491, "n01440764": 0, "n03888257": 701}
GROUP = (1001, "n00001740")  # of classes; the devkit lists such as well
IDS = {"n03888257": 1, "n01440764": 2, "n03000684": 3}  # not in the order of the class indices
Images = Mapping[str, Mapping[str, bytes]]
Make = Callable[[Path], None]
TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"

TRAIN: Images = {
    wnid: {f"{wnid}_{number}.JPEG": f"{wnid} {number}".encode() * number for number in (7, 99, 5)}
    for wnid in CLASSES
}
VAL_CLASSES = ["n03888257", "n01440764", "n01440764", "n03000684", "n03888257"]
VAL_IDS = [IDS[wnid] for wnid in VAL_CLASSES]


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


VAL: Images = {
    wnid: {
        val_name(number): f"val {number}".encode() * 600 * number  # some of several tar blocks
        for number, of in enumerate(VAL_CLASSES, 1)
        if of == wnid
    }
    for wnid in CLASSES
}


def flat(images: Images) -> dict[str, bytes]:
    return {name: data for named in images.values() for name, data in named.items()}


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def tar(files: Iterable[tuple[str, bytes]], mode: str = "w") -> bytes:
    """An archive of these files, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def class_folders(folder: Path, images: Images) -> None:
    for wnid, named in images.items():
        for name, data in named.items():
            put(folder / wnid / name, data)


def tar_of_tars(images: Images) -> bytes:
    return tar((f"{wnid}.tar", tar(list(named.items())[::-1])) for wnid, named in images.items())


def meta() -> bytes:
    """meta.mat: a column of structs, with the fields that torchvision and Keras read, too."""
    fields = ["ILSVRC2012_ID", "WNID", "words", "num_children"]
    table = np.empty((len(IDS) + 1, 1), dtype=[(name, object) for name in fields])
    rows = [(number, wnid, "some thing", 0) for wnid, number in IDS.items()]
    for row, values in enumerate([*rows, (*GROUP, "entity", 2)]):
        table[row, 0] = values
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": table})
    return buffer.getvalue()


def truth(ids: Iterable[object] = VAL_IDS) -> bytes:
    return "".join(f"{number}\n" for number in ids).encode()


def kaggle(labels: Iterable[tuple[str, str]] = ()) -> bytes:
    """LOC_val_solution.csv: in no order, with the boxes of one or two objects."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["ImageId", "PredictionString"])
    pairs = [(Path(val_name(n)).stem, wnid) for n, wnid in enumerate(VAL_CLASSES, 1)]
    for number, (stem, wnid) in enumerate(list(labels) or pairs[::-1]):
        writer.writerow([stem, f"{wnid} 85 1 499 272 " * (1 + number % 2)])
    return table.getvalue().encode()


def devkit(folder: Path) -> None:
    put(folder / "meta.mat", meta())
    put(folder / "ILSVRC2012_validation_ground_truth.txt", truth())


def train_in_folders(root: Path) -> None:
    class_folders(root / "train", TRAIN)
    put(root / "train" / "README.txt", b"no image")


def train_of_kaggle(root: Path) -> None:
    class_folders(root / "ILSVRC" / "Data" / "CLS-LOC" / "train", TRAIN)


def train_in_archive(root: Path) -> None:
    put(root / TRAIN_TAR, tar_of_tars(TRAIN))


def val_in_folders(root: Path) -> None:
    class_folders(root / "val", VAL)


def val_flat_with_devkit(root: Path) -> None:
    for name, data in flat(VAL).items():
        put(root / "val" / name, data)
    put(root / "val" / "README.txt", b"no image")
    devkit(root / "ILSVRC2012_devkit_t12" / "data")


def val_of_kaggle(root: Path) -> None:
    for name, data in flat(VAL).items():
        put(root / "ILSVRC" / "Data" / "CLS-LOC" / "val" / name, data)
    put(root / "LOC_val_solution.csv", kaggle())


def val_in_archive(root: Path) -> None:
    put(root / VAL_TAR, tar((f"./{n}", d) for n, d in flat(VAL).items()))
    devkit(root)


def val_in_archive_with_packed_devkit(root: Path) -> None:
    put(root / VAL_TAR, tar(flat(VAL).items()))
    files = {"meta.mat": meta(), "ILSVRC2012_validation_ground_truth.txt": truth()}
    packed = tar(((f"ILSVRC2012_devkit_t12/data/{n}", d) for n, d in files.items()), "w:gz")
    put(root / "ILSVRC2012_devkit_t12.tar.gz", packed)


def val_in_archive_with_kaggle(root: Path) -> None:
    put(root / VAL_TAR, tar(flat(VAL).items()))
    put(root / "LOC_val_solution.csv", kaggle())


LAYOUTS: dict[str, list[Make]] = {
    "train": [train_in_folders, train_of_kaggle, train_in_archive],
    "val": [
        val_in_folders, val_flat_with_devkit, val_of_kaggle, val_in_archive,
        val_in_archive_with_packed_devkit, val_in_archive_with_kaggle,
    ],
}  # fmt: skip
IMAGES = {"train": TRAIN, "val": VAL}
