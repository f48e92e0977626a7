"""Pictures of samples: the clean image, the attacked one, and their amplified difference."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from regroup.images.preprocessing import Preprocessing, decode_image
from regroup_pipelines.errors import UsageError
from regroup_pipelines.report_pages.evaluation import Missing, or_missing
from regroup_store.format.fingerprint import encoded_digest
from regroup_store.kinds.adversarials import IMAGES
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.sources import LOCATED, open_source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.report_pages.evaluation import ReportedStudy
    from regroup_store.format.element import BlockElement
    from regroup_store.sources import Source

# Images up to this side are stored losslessly as PNG; noisy larger ones would take too many bytes.
LOSSLESS_SIDE = 64
WEBP_QUALITY = 80
SMALLEST_SHOWN = 192


@dataclass
class Album:
    """The picture files of one study, within a limit of bytes.

    Attributes:
        folder: where they go.
        bytes_left: bytes that further pictures, and their samples' data on the page, may take.
    """

    folder: Path
    bytes_left: int
    _count: int = 0

    def add(
        self, pictures: Mapping[str, NDArray[np.float32]], on_page: int = 0, reserve: int = 0
    ) -> dict[str, str] | None:
        """Write the pictures of one sample.

        Args:
            pictures: pixels (3, H, W) in [0, 1] by kind.
            on_page: bytes of this sample's data on the page.
            reserve: bytes to leave unused.

        Returns:
            The files' names within the folder, by kind; None where they do not fit.
        """
        encoded = {kind: encode(pixels) for kind, pixels in pictures.items()}
        size = on_page + sum(len(data) for data, _ in encoded.values())
        if size > self.bytes_left - reserve:
            return None
        self.bytes_left -= size
        names = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        for kind, (data, suffix) in encoded.items():
            names[kind] = f"{self._count:05d}-{kind}.{suffix}"
            (self.folder / names[kind]).write_bytes(data)
        self._count += 1
        return names


def encode(pixels: NDArray[np.float32]) -> tuple[bytes, str]:
    """Encode pixels (3, H, W) in [0, 1] as PNG, large ones as WebP; return data and suffix."""
    from PIL import Image

    levels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    image, buffer = Image.fromarray(np.ascontiguousarray(levels)), io.BytesIO()
    if max(image.size) <= LOSSLESS_SIDE:
        image.save(buffer, "PNG", optimize=True)
        return buffer.getvalue(), "png"
    image.save(buffer, "WEBP", quality=WEBP_QUALITY)
    return buffer.getvalue(), "webp"


def difference(
    clean: NDArray[np.float32], attacked: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """Return the amplified difference around middle grey, and the amplification.

    The largest difference becomes black or white; equal images give plain grey, amplified once.
    """
    change = attacked - clean
    largest = float(np.abs(change).max())
    gain = 0.5 / largest if largest > 0 else 1.0
    return (0.5 + gain * change).astype(np.float32), gain


@dataclass
class CleanPictures:
    """The clean images of an index, decoded and preprocessed as for the network.

    Attributes:
        index: the index.
        preprocessing: the model's preprocessing.
        datasets: where images may be read; what the index itself names is not trusted.
        problem: why no image can be read, or None.
    """

    index: SampleIndex
    preprocessing: JsonObject
    datasets: frozenset[str]
    problem: str | None = None
    _rows: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        source = or_missing(self._open)
        if isinstance(source, Missing):
            self.problem = source.reason
        self._source = source
        self._rows = {
            name: row
            for row, name in enumerate(self.index.rows(None, ["sample_id"])[0].to_pylist())
        }

    def _open(self) -> Source:
        """Open the dataset that the index names, if the user named it too or it has no place.

        Raises:
            UsageError: nobody named it.
        """
        spec = self.index.source_spec
        if spec not in self.datasets and spec.partition(":")[0] in LOCATED:
            raise UsageError(f"a report reads no dataset that is not named: give --dataset {spec}")
        return open_source(spec)

    def read(self, sample_id: str) -> NDArray[np.float32] | Missing:
        """Return the pixels, (3, H, W) float32 in [0, 1], or why they can no longer be read."""
        if isinstance(self._source, Missing):
            return self._source
        if sample_id not in self._rows:
            return Missing(f"the index {self.index.ref} has no such sample any more")
        return or_missing(lambda: self._decode(self._rows[sample_id]))

    def _decode(self, row: int) -> NDArray[np.float32]:
        table = self.index.rows(slice(row, row + 1), ["locator", "digest"]).to_pylist()[0]
        data = self._read(table["locator"])
        if encoded_digest(data) != table["digest"]:
            raise OSError("the image has changed since it was indexed")
        # With PIL even if the network's images were decoded on a GPU: the difference is invisible.
        return decode_image(data, Preprocessing(**{**self.preprocessing, "decoder": "pil"}))

    def _read(self, locator: str) -> bytes:
        assert not isinstance(self._source, Missing)
        data = next(iter(self._source.read([locator])))
        if isinstance(data, OSError):
            raise data
        return data


def open_clean_images(
    study: ReportedStudy, index_ref: str, preprocessing: JsonObject
) -> CleanPictures:
    """Open the clean images of an index.

    Raises:
        StoreUsageError: the index is no longer in the store.
    """
    return CleanPictures(SampleIndex.open(study.store, index_ref), preprocessing, study.datasets)


@dataclass
class AttackedPictures:
    """The images that an attack made; the block read last is cached."""

    element: BlockElement
    _block: int = -1
    _images: NDArray[Any] | None = None

    def read(self, row: int) -> NDArray[np.float32] | Missing:
        """Return the pixels of a row, (3, H, W) float32 in [0, 1], or why they cannot be read."""
        return or_missing(lambda: self._read(row))

    def _read(self, row: int) -> NDArray[np.float32]:
        block, inside = divmod(row, self.element.plan.block_rows)
        if block != self._block or self._images is None:
            self._images, self._block = self.element.read_array(IMAGES, block), block
        pixels: NDArray[np.float32] = self._images[inside]
        return pixels
