"""The extraction worker: one forward pass a sample, its accumulators written to the store."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import torch

from regroup.accumulators import Extraction, Extractor
from regroup.models import Classifier, ModelSpec, forward_samples
from regroup_cluster.dispatch.blocks import BlockReport
from regroup_cluster.dispatch.stopwatch import Phases
from regroup_cluster.workers.images import (
    AdversarialImages,
    BlockRows,
    ImageBatch,
    Images,
    IndexImages,
    map_labels,
)
from regroup_cluster.workers.remote_weights import fetch_classifier
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.features import COLUMNS, LOGITS, accumulators_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from regroup.taps import Tap, TapPolicy


def example_pixels(classifier: Classifier, device: str) -> torch.Tensor:
    """Two grey images of the size that `classifier` sees, (2, 3, H, W), to trace its taps."""
    side = classifier.preprocessing.crop
    return torch.full((2, 3, side, side), 0.5, device=device)


def build_extractor(
    classifier: Classifier, policy: TapPolicy, device: str, last: int | None = None
) -> Extractor:
    """The extractor of a classifier's last `last` taps (all when None), named as its network's."""
    example = example_pixels(classifier, device)
    return Extractor(classifier, policy, example, last=last, root_module=classifier.network)


@dataclass(frozen=True)
class ExtractionJob:
    """Everything a worker needs to extract blocks of one features element; picklable.

    Attributes:
        store_uri: the store that holds the images' index or adversarials and the features.
        features_ref: the features element to fill.
        images_kind: "index" or "adversarials".
        images_ref: the index or adversarials element.
        model: the classifier to build.
        policy: the tap policy.
        batch: samples a forward pass.
        device: torch device of the network.
        labels: the model's class of every label of the index, None where they agree.
        decode_workers: threads that decode, see `regroup_cluster.workers.images.decode_threads`.
    """

    store_uri: str
    features_ref: str
    images_kind: str
    images_ref: str
    model: ModelSpec
    policy: TapPolicy
    batch: int
    device: str
    labels: tuple[int, ...] | None = None
    decode_workers: int | Literal["auto"] = "auto"

    def __call__(self) -> ExtractionWorker:
        """Build the worker, inside the actor."""
        return ExtractionWorker(self)


class BlockResult:
    """The arrays and table of one features block, filled batch by batch; failed rows stay NaN."""

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
        """Store what one forward pass gave for the readable rows of `batch`.

        A sample on which the network overflowed has no outcome: it becomes a failed row.
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
        """How many rows have failed."""
        return sum(error is not None for error in self._errors)

    def table(self) -> pa.Table:
        """The samples table of the block (`kinds.features.COLUMNS`), a row a sample."""
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
    """Softmax outcome of logits (n, M) float32; ties by class index; NaN rows stay NaN."""
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
    """Extracts one block at a time: decode, one forward pass a batch, write, commit."""

    def __init__(self, job: ExtractionJob) -> None:
        self._job = job
        self._element = BlockElement.open(open_store(job.store_uri), "features", job.features_ref)
        self._classifier = fetch_classifier(job.model).to(job.device)
        job.model.compute.set_tf32()
        self._extractor = build_extractor(self._classifier, job.policy, job.device)
        self._images = self._open_images()

    def _open_images(self) -> Images:
        job = self._job
        if job.images_kind == "adversarials":
            return AdversarialImages(job.store_uri, job.images_ref, self._element.inputs)
        rows = self._element.plan.block_rows
        preprocessing = self._classifier.preprocessing
        return IndexImages(
            job.store_uri, job.images_ref, rows, preprocessing, job.device, job.decode_workers
        )

    def process(self, block: int) -> BlockReport:
        """Extract and commit `block` of the features element."""
        started, forwarded, phases = time.perf_counter(), forward_samples(), Phases()
        rows = map_labels(self._images.rows(block), self._job.labels)
        result = BlockResult(rows, self._extractor.taps, self._classifier.num_classes)
        for batch in phases.each("read", self._images.batches(block, self._job.batch)):
            result.fail(batch.errors)
            if len(batch.rows):
                with phases("network"):
                    result.fill(batch, self._forward(batch))
        report = {"failed": result.failed, "seconds": time.perf_counter() - started}
        with phases("write"):
            committed = self._element.write_block(block, result.arrays, result.table(), report)
        return BlockReport(
            block=block,
            committed=committed,
            samples=len(rows.sample_ids),
            failed=result.failed,
            forward_passes=forward_samples() - forwarded,
            seconds=time.perf_counter() - started,
            phases=phases.seconds,
        )

    def _forward(self, batch: ImageBatch) -> Extraction:
        with torch.inference_mode():
            return self._extractor(batch.pixels.to(self._job.device))
