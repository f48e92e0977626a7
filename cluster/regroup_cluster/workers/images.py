"""Where a worker's pixels come from: a sample index (decoded) or stored adversarials."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch

from regroup.images.decoding import open_decoder
from regroup_cluster.errors import ClusterUsageError
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import encoded_digest
from regroup_store.format.store import open_store
from regroup_store.kinds.adversarials import IMAGES
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from regroup.images.decoding import Each
    from regroup.images.preprocessing import Preprocessing

ROW_COLUMNS = ["sample_id", "label", "locator", "digest"]
# Batches that are read or decoded while the network has one: two bridge a slow read of a bucket.
BATCHES_AHEAD = 2


@dataclass(frozen=True)
class ImageBatch:
    """Some consecutive rows of a block.

    Attributes:
        rows: positions within the block of the readable rows, (n,) int64.
        pixels: their images, (n, 3, H, W) float32 in [0, 1], on the CPU or the network's device.
        errors: position within the block of every other row -> one-line reason.
    """

    rows: NDArray[np.int64]
    pixels: torch.Tensor
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


def decode_threads(wanted: int | Literal["auto"], device: str) -> int:
    """How many threads decode; 0: the thread that also runs the network does, nothing is ahead.

    "auto": one where the network needs the CPUs, and beside a GPU all but one of this process's.

    Raises:
        ClusterUsageError: a number below 0.
    """
    if wanted == "auto":
        return 1 if device == "cpu" else max(1, torch.get_num_threads() - 1)
    if wanted < 0:
        raise ClusterUsageError(
            f"{wanted} decode workers: give 0 (decode between the batches) or more"
        )
    return wanted


class IndexImages:
    """Images of a sample index, read from its source, checked against their digest and decoded.

    Reading and decoding of the next batches overlap whatever the caller does with this one
    (DESIGN §6); at most `BATCHES_AHEAD` are held besides it. The pixels depend neither on that
    nor on the number of threads. An image that cannot be read, has changed since it was indexed,
    or cannot be decoded is an error row, never an exception.
    """

    def __init__(
        self,
        store_uri: str,
        index_ref: str,
        block_rows: int,
        preprocessing: Preprocessing,
        device: str,
        decode_workers: int | Literal["auto"] = "auto",
    ) -> None:
        """`device`: where the pixels are to be. `decode_workers`: see `decode_threads`.

        Raises:
            ClusterUsageError: a number of threads below 0.
            ConfigurationError: a decoder that this device does not have.
        """
        self._threads = decode_threads(decode_workers, device)
        self._decoder = open_decoder(preprocessing, device)
        self._device = device
        self._index = SampleIndex.open(open_store(store_uri), index_ref)
        self._source = open_source(self._index.source_spec)
        self._block_rows = block_rows

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

    def batches(self, block: int, batch: int) -> Iterator[ImageBatch]:
        """The block's images in order, at most `batch` at a time; the next ones are ahead."""
        wanted = self._wanted(block, batch)
        if not self._threads:
            return (self._decode(self._read(one), one.start, map) for one in wanted)
        return self._ahead(wanted)

    def _wanted(self, block: int, batch: int) -> list[_Wanted]:
        table = self._table(block)
        locators, digests = ([str(x) for x in table[c]] for c in ("locator", "digest"))
        return [
            _Wanted(start, locators[start : start + batch], digests[start : start + batch])
            for start in range(0, len(locators), batch)
        ]

    def _ahead(self, wanted: list[_Wanted]) -> Iterator[ImageBatch]:
        """The batches in order; each stage has a thread, and decoding more of them for images."""
        with ExitStack() as stack:
            reading, decoding, images = (
                stack.enter_context(ThreadPoolExecutor(threads, name))
                for threads, name in ((1, "read"), (1, "decode"), (self._threads, "image"))
            )

            def decoded(encoded: Future[list[bytes | str]], start: int) -> ImageBatch:
                """The batch whose first row is `start`, once its bytes are read."""
                return self._decode(encoded.result(), start, images.map)

            waiting: deque[Future[ImageBatch]] = deque()
            for one in wanted:
                encoded = reading.submit(self._read, one)
                waiting.append(decoding.submit(decoded, encoded, one.start))
                if len(waiting) > BATCHES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _read(self, wanted: _Wanted) -> list[bytes | str]:
        """Encoded bytes of images, or why they are none of the index's."""
        read = self._source.read(wanted.locators)
        return [_checked(data, digest) for data, digest in zip(read, wanted.digests, strict=True)]

    def _decode(self, encoded: list[bytes | str], start: int, each: Each) -> ImageBatch:
        """The batch whose first row is row `start` of its block."""
        errors = {row: data for row, data in enumerate(encoded) if isinstance(data, str)}
        rows = [row for row in range(len(encoded)) if row not in errors]
        found = self._decoder([data for data in encoded if isinstance(data, bytes)], each)
        errors |= {rows[place]: reason for place, reason in found.errors.items()}
        good = np.array([row for row in rows if row not in errors], np.int64)
        ordered = {start + row: errors[row] for row in sorted(errors)}
        return ImageBatch(good + start, found.pixels.to(self._device), ordered)


@dataclass(frozen=True)
class _Wanted:
    """A batch that is to be read: its first row within the block, what to read, what it was."""

    start: int
    locators: list[str]
    digests: list[str]


def _checked(data: bytes | OSError, digest: str) -> bytes | str:
    if isinstance(data, OSError):
        return str(data)
    if encoded_digest(data) != digest:
        return "the image has changed since it was indexed: index the dataset again"
    return data


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
            rows = np.array(good, np.int64)
            yield ImageBatch(rows, torch.from_numpy(images[rows]), errors)
