"""One tap's mixtures from stored blocks: the sum over all selected samples, whatever the runs."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest

from regroup.bank import DELTA, partial_mixture
from regroup.bank_samples import WeightedSamples
from regroup_cluster.workers.bank import reduce_tap
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.features import COLUMNS, LOGITS, accumulators_path, features_spec

ROWS, BLOCK, CHANNELS, CLASSES = 107, 5, 6, 4


@pytest.fixture
def accumulators() -> np.ndarray:
    return np.random.default_rng(0).lognormal(size=(ROWS, 2, CHANNELS)).astype(np.float32)


@pytest.fixture
def features(tmp_path: Path, accumulators: np.ndarray) -> BlockElement:
    spec = features_spec(
        "small",
        model={},
        taps=[("relu", CHANNELS)],
        policy="preactivation",
        source={"index": "0" * 64},
        num_classes=CLASSES,
        rows=ROWS,
        block_rows=BLOCK,
    )
    element = BlockElement.create(open_store(str(tmp_path / "store"), create=True), spec, {})
    for block in range(element.plan.blocks):
        span = element.plan.span(block)
        rows = len(range(ROWS)[span])
        logits = np.zeros((rows, CLASSES), np.float32)
        arrays = {accumulators_path("relu"): accumulators[span], LOGITS: logits}
        element.write_block(block, arrays, _table(span.start, rows), {})
    return element


def _table(start: int, rows: int) -> pa.Table:
    columns = {
        "sample_id": [str(start + row) for row in range(rows)],
        "status": ["ok"] * rows,
        "error": [None] * rows,
        "label": [0] * rows,
        "prediction": [0] * rows,
        "confidence": [1.0] * rows,
        "true_confidence": [1.0] * rows,
        "top5": [[0]] * rows,
    }
    return pa.table(columns, schema=COLUMNS)


@pytest.mark.parametrize("threads", [1, 2, 3, 50])
def test_the_sum_is_that_of_all_selected_samples(
    features: BlockElement,
    accumulators: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    random = np.random.default_rng(1)
    rows = np.array([0, 4, 5, *range(20, 60), 81, 105, 106])  # some blocks whole, some not at all
    labels, weights = random.integers(0, CLASSES - 1, len(rows)), random.random(len(rows))
    read = Mock(side_effect=features.read_array)
    monkeypatch.setattr(features, "read_array", read)
    found = reduce_tap(features, "relu", WeightedSamples(rows, labels, weights), CLASSES, DELTA)
    expected = partial_mixture(accumulators[rows], labels, weights, CLASSES)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)
    blocks = sorted(call.args[1] for call in read.call_args_list)
    assert blocks == np.unique(rows // BLOCK).tolist()  # each once, and no other
