"""What ImageNet is known to hold, from the training archive to the pixels of a network."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageChops
from torchvision import transforms

from regroup.images.preprocessing import Preprocessing
from regroup_cluster.workers.images import IndexImages
from regroup_store.format.fingerprint import encoded_digest
from regroup_store.format.store import open_store
from regroup_store.kinds.indexes import COLUMNS, SampleIndex
from regroup_store.sources import open_source
from tests.store.imagenet_layouts import TRAIN_TAR, put, tar

PREPROCESSING = Preprocessing(crop=24, resize=32)
TORCHVISION = transforms.Compose(
    [transforms.Resize(32), transforms.CenterCrop(24), transforms.ToTensor()]
)


def picture(mode: str) -> Image.Image:
    """48 x 36 px that differ along both sides and between channels, smooth enough for JPEG."""
    y, x = np.mgrid[0:36, 0:48]
    channels = [x * 5, y * 7, 255 - x * 3 - y, (x + y) * 2][
        : len(Image.new(mode, (1, 1)).getbands())
    ]
    values = np.stack(channels, -1).astype(np.uint8)
    return Image.frombytes(mode, (48, 36), values.tobytes())


def encoded(mode: str, format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture(mode).save(buffer, format, **options)
    return buffer.getvalue()


def ycck() -> bytes:
    """The CMYK picture as luma, chroma and K, which Adobe's marker calls transform 2.

    Pillow writes CMYK inverted and unconverted, so it is given what is to be in the file,
    inverted; C, M and Y take the place of red, green and blue in the conversion.
    """
    *inks, black = picture("CMYK").split()
    luma_and_chroma = Image.merge("RGB", inks).convert("YCbCr").split()
    buffer = io.BytesIO()
    Image.merge("CMYK", [*map(ImageChops.invert, luma_and_chroma), black]).save(
        buffer, "JPEG", quality=95
    )
    data = bytearray(buffer.getvalue())
    start = data.index(b"Adobe")
    assert data[start - 4 : start - 2] == b"\xff\xee", "the marker APP14"
    assert data[start + 11] == 0, "no transform so far"
    data[start + 11] = 2
    return bytes(data)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    return encoded("RGB", exif=exif)


GOOD = {
    "cmyk": encoded("CMYK", quality=95),
    "exif": rotated(),
    "grey": encoded("L"),
    "jpeg": encoded("RGB"),
    "png": encoded("RGB", "PNG"),
    "progressive": encoded("RGB", progressive=True),
    "ycck": ycck(),
}
BAD = {"cut": GOOD["jpeg"][:-200], "empty": b"", "head": GOOD["cmyk"][:100], "text": b"<html>"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> IndexImages:
    """The pictures of one class, all of them named .JPEG, in an untouched training archive."""
    root = tmp_path_factory.mktemp("imagenet")
    named = ((f"{name}.JPEG", data) for name, data in (GOOD | BAD).items())
    put(root / TRAIN_TAR, tar([("n01440764.tar", tar(named))]))
    source = open_source(f"imagenet:train:{root}")
    rows = list(source.rows())
    data = source.read([row.locator for row in rows])
    columns = {
        "sample_id": [row.sample_id for row in rows],
        "label": [row.label for row in rows],
        "locator": [row.locator for row in rows],
        "digest": [encoded_digest(item) for item in data if isinstance(item, bytes)],
    }
    store = open_store(str(root / "store"), create=True)
    table = pa.table(columns, schema=COLUMNS)
    index = SampleIndex.write(store, "traps", [table], source.class_names, source.spec)
    return IndexImages(store.uri, index.ref, len(rows), PREPROCESSING, "cpu")


@pytest.fixture(scope="module")
def outcomes(images: IndexImages) -> dict[str, NDArray[np.float32] | str]:
    """Pixels of each picture, or why it has none."""
    names = [Path(sample_id).stem for sample_id in images.block(0).rows.sample_ids]
    found: dict[str, NDArray[np.float32] | str] = {}
    for batch in images.block(0).batches(4):
        for row, image in zip(batch.rows, batch.pixels, strict=True):
            found[names[row]] = image.numpy()
        found |= {names[row]: error for row, error in batch.errors.items()}
    return found


@pytest.mark.parametrize("name", GOOD)
def test_pixels_are_those_of_torchvision(
    name: str, outcomes: dict[str, NDArray[np.float32] | str]
) -> None:
    expected = TORCHVISION(Image.open(io.BytesIO(GOOD[name])).convert("RGB"))
    np.testing.assert_array_equal(outcomes[name], expected.numpy(), strict=True)


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_decoded_is_a_failed_row(
    name: str, outcomes: dict[str, NDArray[np.float32] | str]
) -> None:
    reasons = {"cut": "truncated", "empty": "no bytes", "head": "decoded", "text": "known format"}
    reason = outcomes[name]
    assert isinstance(reason, str)
    assert reasons[name] in reason


@pytest.mark.parametrize("name", ["cmyk", "ycck"])
def test_inks_are_told_from_light(name: str) -> None:
    """The picture itself comes back: not its negative, and no chroma taken for ink."""
    inks = np.asarray(picture("CMYK"), np.float64)
    expected = (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
    with Image.open(io.BytesIO(GOOD[name])) as image:
        assert image.mode == "CMYK"
        found = np.asarray(image.convert("RGB"), np.float64)
    assert np.abs(found - expected).mean() < 4
