"""Which samples are attacked: those that the model gets right, drawn by seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.attack import correct_samples
from pipelines.errors import UsageError
from pipelines.job import Job
from pipelines.options import ClusterOptions
from store.element import BlockElement
from store.features import COLUMNS, LOGITS, features_spec
from store.indexes import COLUMNS as INDEX_COLUMNS
from store.indexes import SampleIndex

IDS = [f"s{row:02d}" for row in range(12)]
LABELS = [row % 3 for row in range(12)]
WRONG, FAILED = (2, 5), (6,)
CORRECT = [IDS[row] for row in range(12) if row not in (*WRONG, *FAILED)]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    with Job(ClusterOptions(store=str(tmp_path / "store"))) as job:
        yield job


def samples(job: Job, predictions: list[int]) -> tuple[SampleIndex, BlockElement]:
    rows = pa.table(
        {"sample_id": IDS, "label": LABELS, "locator": IDS, "digest": IDS}, schema=INDEX_COLUMNS
    )
    index = SampleIndex.write(job.store, "made-up", [rows], ["a", "b", "c"], "imagefolder:/nowhere")
    spec = features_spec(
        "made-up", model={}, taps=(), policy="linear", source={"index": index.fingerprint},
        num_classes=3, rows=12, block_rows=12,
    )  # fmt: skip
    element = BlockElement.create(job.store, spec, {})
    columns = {
        "sample_id": IDS,
        "status": ["failed" if row in FAILED else "ok" for row in range(12)],
        "error": ["truncated" if row in FAILED else None for row in range(12)],
        "label": LABELS,
        "prediction": predictions,
        "confidence": [0.5] * 12,
        "true_confidence": [0.5] * 12,
        "top5": [None if row in FAILED else [0, 1, 2] for row in range(12)],
    }
    arrays = {LOGITS: np.zeros((12, 3), np.float32)}
    assert element.write_block(0, arrays, pa.table(columns, schema=COLUMNS), {})
    return index, element


def test_only_correct_samples_in_their_order_by_seed(job: Job) -> None:
    predictions = [(y + 1) % 3 if row in WRONG else y for row, y in enumerate(LABELS)]
    index, features = samples(job, predictions)

    def drawn(limit: int | None, seed: int) -> list[str]:
        subset = correct_samples(job, index, features, limit, seed)
        ids: list[str] = subset.rows()["sample_id"].to_pylist()
        return ids

    def literal(limit: int, seed: int) -> list[str]:
        by_hash = sorted(CORRECT, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())
        return sorted(by_hash[:limit])

    assert drawn(None, 0) == drawn(99, 1) == CORRECT
    assert [drawn(4, seed) for seed in (0, 1)] == [literal(4, seed) for seed in (0, 1)]
    assert literal(4, 0) != literal(4, 1)
    with pytest.raises(UsageError, match="--limit 0"):
        drawn(0, 0)


def test_a_model_that_gets_nothing_right(job: Job) -> None:
    index, features = samples(job, [(y + 1) % 3 for y in LABELS])
    with pytest.raises(UsageError, match="nothing to attack"):
        correct_samples(job, index, features, None, 0)
