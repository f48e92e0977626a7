"""The attack worker: adversarial examples of one block of an index, written to the store."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import torch

from cluster.dispatch import BlockReport
from cluster.images import ImageBatch, IndexImages, map_labels
from cluster.phases import Phases
from cluster.weights import fetch_classifier
from regroup.attacks import AttackResult, AttackSpec, predictions, run_attack
from regroup.models import ModelSpec, forward_samples
from store.adversarials import COLUMNS, IMAGES
from store.element import BlockElement
from store.stores import open_store

if TYPE_CHECKING:
    from cluster.images import BlockRows

# What a failed row holds in the columns that `AttackResult` fills for the others.
_EMPTY: dict[str, Any] = {
    "success": False,
    "adversarial_class": -1,
    "target": -1,
    "epsilon": np.nan,
    "l2": np.nan,
    "linf": np.nan,
    "mse": np.nan,
    "steps": 0,
    "queries": 0,
}


@dataclass(frozen=True)
class AttackJob:
    """Everything a worker needs to attack blocks of one index of correct samples; picklable."""

    store_uri: str
    adversarials_ref: str
    index_ref: str
    model: ModelSpec
    attack: AttackSpec
    batch: int
    device: str
    labels: tuple[int, ...] | None = None
    decode_workers: int | Literal["auto"] = "auto"

    def __call__(self) -> AttackWorker:
        """Build the worker, inside the actor."""
        return AttackWorker(self)


class AttackWorker:
    """Attacks one block at a time. Rows are samples that the classifier gets right."""

    def __init__(self, job: AttackJob) -> None:
        self._job = job
        self._element = BlockElement.open(
            open_store(job.store_uri), "adversarials", job.adversarials_ref
        )
        self._classifier = fetch_classifier(job.model).to(job.device)
        job.model.compute.set_tf32()
        self._images = IndexImages(
            job.store_uri,
            job.index_ref,
            self._element.plan.block_rows,
            self._classifier.preprocessing,
            job.device,
            job.decode_workers,
        )

    def process(self, block: int) -> BlockReport:
        """Attack and commit `block` of the adversarials element."""
        started, forwarded, phases = time.perf_counter(), forward_samples(), Phases()
        rows = map_labels(self._images.rows(block), self._job.labels)
        side = self._classifier.preprocessing.crop
        images = np.full((len(rows.sample_ids), 3, side, side), np.nan, np.float32)
        records: list[dict[str, Any]] = [dict(_EMPTY) for _ in rows.sample_ids]
        errors: dict[int, str] = {}
        for batch in phases.each("read", self._images.batches(block, self._job.batch)):
            with phases("network"):
                batch = self._correct(batch, rows)
                errors |= batch.errors
                if len(batch.rows):
                    result = self._attack(batch, rows)
                    images[batch.rows] = result.images
                    _record(records, batch, result)
        table = _table(rows, records, errors)
        report = {"failed": len(errors), "seconds": time.perf_counter() - started}
        with phases("write"):
            committed = self._element.write_block(block, {IMAGES: images}, table, report)
        return BlockReport(
            block=block,
            committed=committed,
            samples=len(rows.sample_ids),
            failed=len(errors),
            forward_passes=forward_samples() - forwarded,
            seconds=time.perf_counter() - started,
            phases=phases.seconds,
        )

    def _correct(self, batch: ImageBatch, rows: BlockRows) -> ImageBatch:
        """The batch without samples that are misclassified here after all.

        The index was drawn from stored features; a tie within rounding may fall the other way.
        """
        labels = rows.labels[batch.rows]
        right = predictions(self._classifier, batch.pixels).numpy() == labels
        kept = torch.from_numpy(right).to(batch.pixels.device)
        wrong = dict.fromkeys(batch.rows[~right].tolist(), "misclassified when it was attacked")
        return ImageBatch(batch.rows[right], batch.pixels[kept], batch.errors | wrong)

    def _attack(self, batch: ImageBatch, rows: BlockRows) -> AttackResult:
        return run_attack(
            self._job.attack,
            self._classifier,
            batch.pixels.to(self._job.device),
            torch.from_numpy(rows.labels[batch.rows]).long().to(self._job.device),
            [rows.sample_ids[i] for i in batch.rows],
        )


def _record(records: list[dict[str, Any]], batch: ImageBatch, result: AttackResult) -> None:
    """Copy a result's per-sample fields into the records of the batch's rows."""
    for field in _EMPTY:
        values = getattr(result, field, None)
        if values is None:
            continue
        for row, value in zip(batch.rows, values.tolist(), strict=True):
            records[row][field] = value


def _table(rows: BlockRows, records: list[dict[str, Any]], errors: dict[int, str]) -> pa.Table:
    columns: dict[str, Any] = {field: [r[field] for r in records] for field in _EMPTY}
    columns["sample_id"] = rows.sample_ids
    columns["label"] = rows.labels
    columns["status"] = ["failed" if i in errors else "ok" for i in range(len(records))]
    columns["error"] = [errors.get(i) for i in range(len(records))]
    return pa.table(columns, schema=COLUMNS)
