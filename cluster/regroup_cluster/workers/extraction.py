"""Extraction: one forward pass per sample, whose accumulators are written to the store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import torch

from regroup.accumulators import Extraction, Extractor
from regroup.models.seeding import seeded_where
from regroup_cluster.dispatch.blocks import BlockOutcome, BlockWork
from regroup_cluster.workers.remote_weights import fetch_classifier
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.features import COLUMNS, LOGITS, accumulators_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from regroup.models import Classifier, ModelSpec
    from regroup.taps import Tap, TapPolicy
    from regroup_cluster.dispatch.stopwatch import BlockClock
    from regroup_cluster.workers.images import BlockRows, ImageBatch, ImagesSpec


def example_pixels(classifier: Classifier, device: str) -> torch.Tensor:
    """Return two grey images, (2, 3, H, W), of the size that `classifier` takes, to trace taps."""
    side = classifier.preprocessing.crop
    return torch.full((2, 3, side, side), 0.5, device=device)


def build_extractor(
    classifier: Classifier, policy: TapPolicy, device: str, last: int | None = None
) -> Extractor:
    """Build the extractor of a classifier's last taps, named relative to its network.

    Args:
        classifier: the network behind its normalisation.
        policy: the tap policy.
        device: torch device of the classifier.
        last: number of taps; None: all.
    """
    example = example_pixels(classifier, device)
    return Extractor(classifier, policy, example, last=last, root_module=classifier.network)


@dataclass(frozen=True)
class ExtractionWork(BlockWork):
    """Extracts the blocks of one features element.

    Attributes:
        store_uri: the store that holds the images' index or adversarials and the features.
        features_ref: the features element to fill.
        images: where the images come from.
        model: the classifier to build.
        policy: the tap policy.
        batch: samples per forward pass.
        device: torch device of the network.
    """

    store_uri: str
    features_ref: str
    images: ImagesSpec
    model: ModelSpec
    policy: TapPolicy
    batch: int
    device: str = "cpu"

    def on_device(self, device: str) -> Self:
        """See `BlockWork.on_device`."""
        return replace(self, device=device)

    def open(self) -> ExtractionWorker:
        """Build the network and open the images."""
        return ExtractionWorker(self)


class FeaturesBlockBuffer:
    """The arrays and table of one features block, filled batch by batch; failed rows stay NaN.

    Attributes:
        arrays: by path within the element; accumulators (n, 2, C) per tap and logits (n, M), all
            float32.
    """

    def __init__(self, rows: BlockRows, taps: tuple[Tap, ...], num_classes: int) -> None:
        n = len(rows.sample_ids)
        self._rows = rows
        self._paths = [accumulators_path(tap.name) for tap in taps]
        self.arrays = {
            path: np.full((n, 2, tap.channels), np.nan, np.float32)
            for path, tap in zip(self._paths, taps, strict=True)
        }
        self.arrays[LOGITS] = np.full((n, num_classes), np.nan, np.float32)
        self._errors: list[str | None] = [None] * n
        self._top5: list[list[int] | None] = [None] * n

    def fill(self, batch: ImageBatch, extraction: Extraction) -> None:
        """Store the result of one forward pass over the readable rows of `batch`.

        A sample on which the network overflowed becomes a failed row.
        """
        found = dict(zip(self._paths, extraction.accumulators, strict=True))
        found[LOGITS] = extraction.logits
        finite = np.ones(len(batch.rows), bool)
        for path, tensor in found.items():
            values = tensor.cpu().numpy()
            self.arrays[path][batch.rows] = values
            finite &= np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        self._discard(batch.rows[~finite].tolist())

    def _discard(self, rows: list[int]) -> None:
        self.fail(dict.fromkeys(rows, "the network overflowed on it: NaN or infinite responses"))
        for values in self.arrays.values():
            values[rows] = np.nan

    def fail(self, errors: dict[int, str]) -> None:
        """Mark rows (position -> reason) as failed."""
        for row, reason in errors.items():
            self._errors[row] = reason

    @property
    def failed(self) -> int:
        """Number of failed rows."""
        return sum(error is not None for error in self._errors)

    def table(self) -> pa.Table:
        """Return the samples table of the block (`kinds.features.COLUMNS`), one row per sample."""
        outcome = _outcome(self.arrays[LOGITS], self._rows.labels)
        ok = np.array([error is None for error in self._errors])
        columns: dict[str, Any] = {
            "sample_id": self._rows.sample_ids,
            "status": np.where(ok, "ok", "failed"),
            "error": self._errors,
            "label": self._rows.labels,
            "prediction": np.where(ok, outcome.prediction, -1),
            "confidence": outcome.confidence,
            "true_confidence": outcome.true_confidence,
            "top5": [row if good else None for row, good in zip(outcome.top5, ok, strict=True)],
        }
        return pa.table(columns, schema=COLUMNS)


@dataclass(frozen=True)
class _Outcome:
    prediction: NDArray[np.int64]
    confidence: NDArray[np.float32]
    true_confidence: NDArray[np.float32]
    top5: list[list[int]]


def _outcome(logits: NDArray[np.float32], labels: NDArray[np.int32]) -> _Outcome:
    """Return the softmax outcome of logits (n, M) float32; ties by class index; NaN stays NaN."""
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    softmax = (exponent / exponent.sum(axis=1, keepdims=True)).astype(np.float32)
    order = np.argsort(-logits, axis=1, kind="stable")
    rows = np.arange(len(logits))
    return _Outcome(
        order[:, 0],
        softmax[rows, order[:, 0]],
        softmax[rows, labels],
        order[:, :5].tolist(),
    )


class ExtractionWorker:
    """Extracts one block at a time: decode, one forward pass per batch, write, commit."""

    def __init__(self, work: ExtractionWork) -> None:
        self._work = work
        self._element = BlockElement.open(open_store(work.store_uri), "features", work.features_ref)
        self._classifier = fetch_classifier(work.model).to(work.device)
        work.model.compute.set_tf32()
        self._extractor = build_extractor(self._classifier, work.policy, work.device)
        preprocessing = self._classifier.preprocessing
        self._images = work.images.open(work.store_uri, self._element, preprocessing, work.device)

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        """Extract and commit `block` of the features element."""
        with seeded_where(self._classifier.stochastic, block):
            return self._process(block, clock)

    def _process(self, block: int, clock: BlockClock) -> BlockOutcome:
        images = self._images.block(block)
        taps, classes = self._extractor.taps, self._classifier.num_classes
        buffer = FeaturesBlockBuffer(images.rows, taps, classes)
        for batch in clock.each("read", images.batches(self._work.batch)):
            buffer.fail(batch.errors)
            if len(batch.rows):
                with clock.phase("network"):
                    buffer.fill(batch, self._forward(batch))
        report = {"failed": buffer.failed, "seconds": clock.seconds}
        with clock.phase("write"):
            committed = self._element.write_block(block, buffer.arrays, buffer.table(), report)
        return BlockOutcome(committed, len(images.rows.sample_ids), buffer.failed)

    def _forward(self, batch: ImageBatch) -> Extraction:
        with self._classifier.without_gradients():
            return self._extractor(batch.pixels.to(self._work.device))
