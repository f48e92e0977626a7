"""Where a worker's pixels come from: a sample index (decoded) or stored adversarials."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from regroup.pixels import Preprocessing, UnreadableImageError, decode
from store.adversarials import IMAGES
from store.element import BlockElement
from store.fingerprint import encoded_digest
from store.indexes import SampleIndex
from store.sources import open_source
from store.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

    from numpy.typing import NDArray

ROW_COLUMNS = ["sample_id", "label", "locator", "digest"]


@dataclass(frozen=True)
class ImageBatch:
    """Some consecutive rows of a block.

    Attributes:
        rows: positions within the block of the readable rows, (n,) int64.
        pixels: their images, (n, 3, H, W) float32 in [0, 1].
        errors: position within the block of every other row -> one-line reason.
    """

    rows: NDArray[np.int64]
    pixels: NDArray[np.float32]
    errors: dict[int, str]


@dataclass(frozen=True)
class BlockRows:
    """The identity of a block's samples: ids (n), labels (n,) int32."""

    sample_ids: list[str]
    labels: NDArray[np.int32]


def map_labels(rows: BlockRows, labels: tuple[int, ...] | None) -> BlockRows:
    """`rows` with the model's class in place of each label of the dataset; None: they agree."""
    if labels is None:
        return rows
    return BlockRows(rows.sample_ids, np.array(labels, np.int32)[rows.labels])


class Images(Protocol):
    """A split's images, block by block."""

    def rows(self, block: int) -> BlockRows:
        """Ids and labels of all rows of `block`."""

    def batches(self, block: int, batch: int) -> Iterator[ImageBatch]:
        """The block's images in order, at most `batch` at a time."""


def _batch(outcomes: list[NDArray[np.float32] | str], start: int, crop: int) -> ImageBatch:
    good = [i for i, outcome in enumerate(outcomes) if not isinstance(outcome, str)]
    pixels = np.stack([outcomes[i] for i in good]) if good else np.empty((0, 3, crop, crop))
    errors = {start + i: o for i, o in enumerate(outcomes) if isinstance(o, str)}
    return ImageBatch(np.array(good, np.int64) + start, pixels.astype(np.float32), errors)


class IndexImages:
    """Images of a sample index, read from its source, checked against their digest and decoded.

    Decoding of the next batch overlaps whatever the caller does with this one (DESIGN §6).
    An image that cannot be read, has changed since it was indexed, or cannot be decoded is an
    error row, never an exception.
    """

    def __init__(
        self, store_uri: str, index_ref: str, block_rows: int, preprocessing: Preprocessing
    ) -> None:
        self._index = SampleIndex.open(open_store(store_uri), index_ref)
        self._source = open_source(self._index.source_spec)
        self._block_rows = block_rows
        self._preprocessing = preprocessing

    def _table(self, block: int) -> dict[str, list[object]]:
        start = block * self._block_rows
        stop = min(start + self._block_rows, self._index.rows_count)
        columns: dict[str, list[object]] = self._index.rows(
            slice(start, stop), ROW_COLUMNS
        ).to_pydict()
        return columns

    def rows(self, block: int) -> BlockRows:
        """Ids and labels of all rows of `block`."""
        table = self._table(block)
        return BlockRows([str(s) for s in table["sample_id"]], np.array(table["label"], np.int32))

    def _outcomes(self, locators: list[str], digests: list[str]) -> list[NDArray[np.float32] | str]:
        return [
            self._outcome(data, digest)
            for data, digest in zip(self._source.read(locators), digests, strict=True)
        ]

    def _outcome(self, data: bytes | OSError, digest: str) -> NDArray[np.float32] | str:
        if isinstance(data, OSError):
            return str(data)
        if encoded_digest(data) != digest:
            return "the image has changed since it was indexed: index the dataset again"
        try:
            return decode(data, self._preprocessing)
        except UnreadableImageError as error:
            return str(error)

    def batches(self, block: int, batch: int) -> Iterator[ImageBatch]:
        """The block's images in order, at most `batch` at a time; the next one decodes ahead."""
        table = self._table(block)
        locators = [str(x) for x in table["locator"]]
        digests = [str(x) for x in table["digest"]]
        starts = range(0, len(locators), batch)
        with ThreadPoolExecutor(1, "decode") as ahead:

            def submit(start: int) -> Future[list[NDArray[np.float32] | str]]:
                cut = slice(start, start + batch)
                return ahead.submit(self._outcomes, locators[cut], digests[cut])

            future = submit(0)
            for start in starts:
                outcomes = future.result()
                if start + batch < len(locators):
                    future = submit(start + batch)
                yield _batch(outcomes, start, self._preprocessing.crop)


class AdversarialImages:
    """Images of a stored adversarials element; its failed rows are error rows here."""

    def __init__(
        self, store_uri: str, adversarials_ref: str, features: Mapping[str, object]
    ) -> None:
        """`features`: the inputs of the features that are made of them."""
        self._element = BlockElement.open(open_store(store_uri), "adversarials", adversarials_ref)
        self._element.accept_gaps_of(features)

    def rows(self, block: int) -> BlockRows:
        """Ids and labels of all rows of `block`."""
        table = self._element.read_table(block, ["sample_id", "label"]).to_pydict()
        return BlockRows(table["sample_id"], np.array(table["label"], np.int32))

    def batches(self, block: int, batch: int) -> Iterator[ImageBatch]:
        """The block's images in order, at most `batch` at a time."""
        images = self._element.read_array(IMAGES, block)
        table = self._element.read_table(block, ["status", "error"]).to_pydict()
        for start in range(0, len(images), batch):
            cut = range(start, min(start + batch, len(images)))
            good = [i for i in cut if table["status"][i] == "ok"]
            errors = {i: table["error"][i] for i in cut if table["status"][i] != "ok"}
            yield ImageBatch(np.array(good, np.int64), images[good], errors)
