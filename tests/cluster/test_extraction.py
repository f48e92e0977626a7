"""What an extraction worker stores of a block: outcomes of the logits, and of failed rows."""

from __future__ import annotations

import numpy as np
import torch

from regroup.accumulators import Extraction
from regroup.taps import Tap
from regroup_cluster.workers.extraction import FeaturesBlockBuffer
from regroup_cluster.workers.images import BlockRows, ImageBatch


def test_outcomes_of_a_block_with_a_failed_row() -> None:
    rows = BlockRows(["a", "b", "c"], np.array([0, 0, 4], np.int32))
    result = FeaturesBlockBuffer(rows, (), 6)
    nothing = torch.empty((2, 3, 1, 1))
    batch = ImageBatch(np.array([0, 2]), nothing, {1: "truncated"})
    logits = torch.tensor([[1.0, 5, 3, 5, 0, 2], [0, 0, 0, 0, 6, 0]])
    result.fail(batch.errors)
    result.fill(batch, Extraction(logits, ()))
    table = result.table().to_pydict()
    assert result.failed == 1
    assert table["status"] == ["ok", "failed", "ok"]
    assert table["error"] == [None, "truncated", None]
    # A failed row of class 0 would otherwise count as classified correctly.
    assert table["prediction"] == [1, -1, 4]
    assert table["top5"] == [[1, 3, 2, 5, 0], None, [4, 0, 1, 2, 3]]
    softmax = torch.softmax(logits.double(), 1)
    for column, classes in (("confidence", (1, 4)), ("true_confidence", (0, 4))):
        expected = [float(softmax[0, classes[0]]), np.nan, float(softmax[1, classes[1]])]
        np.testing.assert_allclose(table[column], expected, rtol=1e-6)
    assert np.isnan(result.arrays["logits.zarr"][1]).all()
    np.testing.assert_array_equal(result.arrays["logits.zarr"][[0, 2]], logits)


def test_a_sample_on_which_the_network_overflows_is_a_failed_row() -> None:
    rows = BlockRows(["a", "b", "c"], np.array([0, 0, 0], np.int32))
    result = FeaturesBlockBuffer(rows, (Tap("relu", 1, 1),), 2)
    batch = ImageBatch(np.arange(3), torch.empty((3, 3, 1, 1)), {})
    logits = torch.tensor([[torch.nan, torch.nan], [1.0, 0.0], [2.0, 1.0]])
    accumulators = torch.tensor([[[1.0], [1.0]], [[torch.inf], [0.0]], [[1.0], [0.0]]])
    result.fill(batch, Extraction(logits, (accumulators,)))
    table = result.table().to_pydict()
    assert table["status"] == ["failed", "failed", "ok"]
    assert table["prediction"] == [-1, -1, 0]
    assert "overflowed" in table["error"][0]
    assert np.isnan(result.arrays["accumulators.zarr/relu"][:2]).all()
    assert np.isnan(result.arrays["logits.zarr"][:2]).all()
