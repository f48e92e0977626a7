"""Where a worker's images come from: a sample index (decoded) or stored adversarials."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch

from regroup.images.decoding import open_decoder
from regroup.images.preprocessing import DecodingLimits
from regroup_cluster.errors import ClusterUsageError
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import encoded_digest
from regroup_store.format.store import open_store
from regroup_store.kinds.adversarials import IMAGES
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.sources import DEFAULT_LARGEST, open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from regroup.images.decoding import Each
    from regroup.images.preprocessing import Preprocessing

DecodeWorkers = int | Literal["auto"]

ROW_COLUMNS = ["sample_id", "label", "locator", "digest"]
# Batches that are read or decoded while the network has one: two bridge a slow read of a bucket.
BATCHES_AHEAD = 2


@dataclass(frozen=True)
class ImageBatch:
    """Consecutive rows of a block.

    Attributes:
        rows: positions within the block of the readable rows, (n,) int64.
        pixels: their images, (n, 3, H, W) float32 in [0, 1], on the CPU or the network's device.
        errors: position within the block of each unreadable row -> one-line reason.
    """

    rows: NDArray[np.int64]
    pixels: torch.Tensor
    errors: dict[int, str]


@dataclass(frozen=True)
class BlockRows:
    """The samples of a block.

    Attributes:
        sample_ids: n ids.
        labels: (n,) int32.
    """

    sample_ids: list[str]
    labels: NDArray[np.int32]


class BlockImages(Protocol):
    """The images of one block."""

    @property
    def rows(self) -> BlockRows:
        """Ids and labels of all rows of the block."""
        ...

    def batches(self, size: int) -> Iterator[ImageBatch]:
        """Yield the images in order, at most `size` at a time."""
        ...


class Images(Protocol):
    """The images of a split, block by block."""

    def block(self, number: int) -> BlockImages:
        """Read the rows of block `number`; its images are read batch by batch."""
        ...


class ImagesSpec(Protocol):
    """Where images come from: frozen and picklable, opened in a worker."""

    def open(
        self, store_uri: str, element: BlockElement, preprocessing: Preprocessing, device: str
    ) -> Images:
        """Open the images.

        Args:
            store_uri: the store that holds their index or element.
            element: what is made of them, block by block.
            preprocessing: of encoded images.
            device: torch device that the pixels should be on.
        """
        ...


@dataclass(frozen=True)
class IndexSpec:
    """The images of a sample index.

    Attributes:
        ref: the index.
        labels: the model's class of each label of the dataset; None where they are the same.
        decode_workers: see `decode_threads`.
        largest: bytes that one image may cost.
    """

    ref: str
    labels: tuple[int, ...] | None = None
    decode_workers: DecodeWorkers = "auto"
    largest: int = DEFAULT_LARGEST

    def open(
        self, store_uri: str, element: BlockElement, preprocessing: Preprocessing, device: str
    ) -> IndexImages:
        """See `ImagesSpec.open`."""
        rows = element.plan.block_rows
        return IndexImages(
            store_uri,
            self.ref,
            rows,
            preprocessing,
            device,
            self.decode_workers,
            self.labels,
            self.largest,
        )


@dataclass(frozen=True)
class AdversarialsSpec:
    """The images of a stored adversarials element.

    Attributes:
        ref: the element.
    """

    ref: str

    def open(
        self, store_uri: str, element: BlockElement, preprocessing: Preprocessing, device: str
    ) -> AdversarialImages:
        """See `ImagesSpec.open`; they are stored decoded, and are moved to the device later."""
        del preprocessing, device
        return AdversarialImages(store_uri, self.ref, element.inputs)


def decode_threads(wanted: DecodeWorkers, device: str) -> int:
    """Return how many threads decode; 0: the thread that runs the network does, with no read-ahead.

    "auto" is one thread where the network needs the CPUs; beside a GPU, all CPUs of this process
    but one.

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
    """Images of a sample index: read from its source, verified by their digest, and decoded.

    Reading and decoding of the next batches overlap whatever the caller does with the current one;
    at most `BATCHES_AHEAD` are held besides it. The pixels depend neither on that nor on the number
    of threads. An image that cannot be read, has changed since it was indexed, or cannot be decoded
    is an error row, never an exception.
    """

    def __init__(
        self,
        store_uri: str,
        index_ref: str,
        block_rows: int,
        preprocessing: Preprocessing,
        device: str,
        decode_workers: DecodeWorkers = "auto",
        labels: tuple[int, ...] | None = None,
        largest: int = DEFAULT_LARGEST,
    ) -> None:
        """Open the index and its source.

        Args:
            store_uri: the store of the index.
            index_ref: the index.
            block_rows: rows per block.
            preprocessing: decoder, resize and crop.
            device: torch device that the pixels should be on.
            decode_workers: see `decode_threads`.
            labels: see `IndexSpec`.
            largest: see `IndexSpec`.

        Raises:
            ClusterUsageError: a number of threads below 0.
            ConfigurationError: a decoder that this device does not have.
        """
        self._threads = decode_threads(decode_workers, device)
        self._device = device
        self._index = SampleIndex.open(open_store(store_uri), index_ref)
        limits = DecodingLimits(largest, self._index.deep)
        self._decoder = open_decoder(preprocessing, device, limits)
        self._source = open_source(self._index.source_spec, largest)
        self._block_rows = block_rows
        self._labels = labels

    def block(self, number: int) -> IndexBlock:
        """Read the rows of block `number`."""
        start = number * self._block_rows
        stop = min(start + self._block_rows, self._index.rows_count)
        table = self._index.rows(slice(start, stop), ROW_COLUMNS).to_pydict()
        labels = np.array(table["label"], np.int32)
        if self._labels is not None:
            labels = np.array(self._labels, np.int32)[labels]
        rows = BlockRows([str(name) for name in table["sample_id"]], labels)
        return IndexBlock(rows, table["locator"], table["digest"], self.decoded)

    def decoded(self, batches: list[EncodedBatch]) -> Iterator[ImageBatch]:
        """Yield the batches of one block, read and decoded."""
        if not self._threads:
            return (self._decode(self._read(batch), batch.start, map) for batch in batches)
        return self._ahead(batches)

    def _ahead(self, batches: list[EncodedBatch]) -> Iterator[ImageBatch]:
        """Yield the batches in order; each stage has a thread, and images have threads besides."""
        with ExitStack() as stack:
            reading, decoding, images = (
                stack.enter_context(ThreadPoolExecutor(threads, name))
                for threads, name in ((1, "read"), (1, "decode"), (self._threads, "image"))
            )

            def decoded(encoded: Future[list[bytes | str]], start: int) -> ImageBatch:
                """Decode the batch whose first row is `start`, once its bytes are read."""
                return self._decode(encoded.result(), start, images.map)

            waiting: deque[Future[ImageBatch]] = deque()
            for batch in batches:
                encoded = reading.submit(self._read, batch)
                waiting.append(decoding.submit(decoded, encoded, batch.start))
                if len(waiting) > BATCHES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _read(self, batch: EncodedBatch) -> list[bytes | str]:
        """Return the encoded bytes of each image, or why it cannot be used."""
        read = self._source.read(batch.locators)
        return [_checked(data, digest) for data, digest in zip(read, batch.digests, strict=True)]

    def _decode(self, encoded: list[bytes | str], start: int, each: Each) -> ImageBatch:
        """Decode the batch whose first row is row `start` of its block."""
        errors = {row: data for row, data in enumerate(encoded) if isinstance(data, str)}
        rows = [row for row in range(len(encoded)) if row not in errors]
        found = self._decoder([data for data in encoded if isinstance(data, bytes)], each)
        errors |= {rows[position]: reason for position, reason in found.errors.items()}
        good = np.array([row for row in rows if row not in errors], np.int64)
        ordered = {start + row: errors[row] for row in sorted(errors)}
        return ImageBatch(good + start, found.pixels.to(self._device), ordered)


@dataclass(frozen=True)
class EncodedBatch:
    """Images of a batch before they are read.

    Attributes:
        start: first row within the block.
        locators: where the source finds each image.
        digests: of its encoded bytes when it was indexed.
    """

    start: int
    locators: list[str]
    digests: list[str]


@dataclass(frozen=True)
class IndexBlock:
    """One block of a sample index.

    Attributes:
        rows: ids and labels.
        locators: see `EncodedBatch`; of all rows.
        digests: see `EncodedBatch`; of all rows.
        decoded: reads and decodes the batches.
    """

    rows: BlockRows
    locators: list[str]
    digests: list[str]
    decoded: Callable[[list[EncodedBatch]], Iterator[ImageBatch]]

    def batches(self, size: int) -> Iterator[ImageBatch]:
        """Yield the images in order, at most `size` at a time; the next batches are read ahead."""
        cuts = [slice(start, start + size) for start in range(0, len(self.locators), size)]
        return self.decoded(
            [EncodedBatch(cut.start, self.locators[cut], self.digests[cut]) for cut in cuts]
        )


def _checked(data: bytes | OSError, digest: str) -> bytes | str:
    if isinstance(data, OSError):
        return str(data)
    if encoded_digest(data) != digest:
        return "the image has changed since it was indexed: index the dataset again"
    return data


class AdversarialImages:
    """Images of a stored adversarials element; its failed rows are error rows here."""

    def __init__(self, store_uri: str, adversarials_ref: str, inputs: Mapping[str, object]) -> None:
        """Open the element; `inputs` are those of the features that are made of it."""
        self._element = BlockElement.open(open_store(store_uri), "adversarials", adversarials_ref)
        self._element.accept_gaps_of(inputs)

    def block(self, number: int) -> AdversarialBlock:
        """Read the rows of block `number`."""
        columns = ["sample_id", "label", "status", "error"]
        table = self._element.read_table(number, columns).to_pydict()
        rows = BlockRows(table["sample_id"], np.array(table["label"], np.int32))
        ok = [status == "ok" for status in table["status"]]
        return AdversarialBlock(rows, ok, table["error"], partial(self._pixels, number))

    def _pixels(self, number: int) -> NDArray[np.float32]:
        pixels: NDArray[np.float32] = self._element.read_array(IMAGES, number)
        return pixels


@dataclass(frozen=True)
class AdversarialBlock:
    """One block of stored adversarials.

    Attributes:
        rows: ids and labels.
        ok: of each row, whether it has an image.
        errors: of each row, why it has none.
        read: reads the images of all rows, (n, 3, H, W).
    """

    rows: BlockRows
    ok: list[bool]
    errors: list[str]
    read: Callable[[], NDArray[np.float32]]

    def batches(self, size: int) -> Iterator[ImageBatch]:
        """Yield the images in order, at most `size` at a time."""
        images = self.read()
        for start in range(0, len(images), size):
            cut = range(start, min(start + size, len(images)))
            good = np.array([row for row in cut if self.ok[row]], np.int64)
            errors = {row: self.errors[row] for row in cut if not self.ok[row]}
            yield ImageBatch(good, torch.from_numpy(images[good]), errors)
