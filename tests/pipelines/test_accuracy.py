"""Counts from stored votes, against counts by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from regroup_pipelines.results.accuracy import (
    accuracy_row,
    regroup_accuracy,
    softmax_accuracy,
    summarise,
    tap_accuracy,
)
from regroup_store.format.element import BlockElement
from regroup_store.kinds.votes import (
    COLUMNS,
    PREDICTION,
    TAP_PREDICTION,
    TAP_TRUE_RANK,
    TRUE_RANK,
    votes_spec,
)
from tests.store.elements import memory_store

# One row a sample; the two blocks hold three and two of them.
STATUS = ["ok", "failed", "ok", "ok", "ok"]
LABELS, PREDICTIONS = [0, 0, 2, 3, 4], [0, -1, 1, 3, 1]
TOP5 = [True, None, True, True, False]
RANKS = [[1, 5], [-1, -1], [5, 1], [6, 1], [1, 2]]  # true ranks at k = 1, 2; the same for all signs
SUCCESS = [False, False, True, False, True]


def votes(success: list[bool] | list[None]) -> BlockElement:
    spec = votes_spec(
        "digits", features_fingerprint="a" * 64, bank_fingerprint="b" * 64, scoring={},
        taps=("first", "last"), rows=5, block_rows=3,
    )  # fmt: skip
    element = BlockElement.create(memory_store(), spec, {})
    table = pa.table(
        {
            "sample_id": list("vwxyz"),
            "status": STATUS,
            "error": [None if status == "ok" else "truncated" for status in STATUS],
            "label": LABELS,
            "prediction": PREDICTIONS,
            "top5_correct": TOP5,
            "success": success,
        },
        schema=COLUMNS,
    )
    ranks = np.repeat(np.array(RANKS, np.int32)[:, None], 3, axis=1)
    ranks[2, 1:] = 9  # by either sign alone the third sample is far off
    for block in range(2):
        span = element.plan.span(block)
        arrays = {TRUE_RANK: ranks, TAP_TRUE_RANK: ranks[..., ::-1]}
        arrays |= {PREDICTION: np.zeros_like(ranks), TAP_PREDICTION: np.zeros_like(ranks)}
        part = {path: np.ascontiguousarray(a[span]) for path, a in arrays.items()}
        part_table = table.slice(span.start, span.stop - span.start)
        assert element.write_block(block, part, part_table, {})
    return element


@pytest.mark.parametrize(
    ("group", "n", "softmax", "top1", "top5"),
    [
        ("all", 4, (2, 3), [2, 2], [3, 4]),
        ("success", 2, (0, 1), [1, 1], [2, 2]),
        ("correct", 2, (2, 2), [1, 1], [1, 2]),
    ],
)
def test_counts_by_hand(
    group: str, n: int, softmax: tuple[int, int], top1: list[int], top5: list[int]
) -> None:
    summary = summarise(votes(SUCCESS))
    assert (summary["failed"], summary["attacked"]) == (1, True)
    for top, found in ((1, softmax[0]), (5, softmax[1])):
        accuracy = softmax_accuracy(summary, group, top)
        assert (accuracy.correct, accuracy.total) == (found, n)
    for top, hits in ((1, top1), (5, top5)):
        for k in (1, 2):
            accuracy = regroup_accuracy(summary, group, k, "both", top)
            assert (accuracy.correct, accuracy.total) == (hits[k - 1], n)
    np.testing.assert_allclose(tap_accuracy(summary, group), np.array(top1[::-1]) / n)


def test_signs_are_counted_apart() -> None:
    counts = summarise(votes(SUCCESS))["all"]
    assert counts["top1"] == {"both": [2, 2], "positive": [2, 1], "negative": [2, 1]}
    assert counts["tap_top5"] == {"both": [4, 3], "positive": [3, 2], "negative": [3, 2]}


def test_clean_images_have_no_successes() -> None:
    summary = summarise(votes([None] * 5))
    assert not summary["attacked"]
    assert summary["success"]["n"] == 0
    assert softmax_accuracy(summary, "success").value is None
    assert str(softmax_accuracy(summary, "success")) == "not run"


def test_a_row_of_the_table() -> None:
    row = accuracy_row("PGD", summarise(votes(SUCCESS)), 2, "positive")
    assert (row["attempted"], row["failed"], row["success"]) == (4, 1, 2)
    cells = {name: cell["correct"] for name, cell in row.items() if "_top" in name}
    assert cells == {
        "softmax_top1_all": 2, "regroup_top1_all": 1, "softmax_top5_all": 3, "regroup_top5_all": 3,
        "softmax_top1_S": 0, "regroup_top1_S": 0, "softmax_top5_S": 1, "regroup_top5_S": 1,
    }  # fmt: skip
    clean = accuracy_row("clean", summarise(votes([None] * 5)), 1, "both")
    assert clean["success"] is None
    assert not [name for name in clean if name.endswith("_S")]
