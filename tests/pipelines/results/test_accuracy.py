"""Counts from stored votes, against counts by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pytest

from regroup_pipelines.results.accuracy import accuracies, accuracy_row, chosen_k, tap_accuracy
from regroup_pipelines.results.base import MEASURES, Accuracies
from regroup_pipelines.results.counts import GroupCounts, VoteSummary, summarise
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

# One row per sample; the two blocks hold three and two of them.
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


def summary_of(success: list[bool] | list[None]) -> VoteSummary:
    """The summary that is stored with the votes."""
    element = votes(success)
    element.finalise(summarise(element))
    return VoteSummary.of(element)


def correct(found: Accuracies) -> tuple[int, int, int, int]:
    cells = (found.softmax_top1, found.softmax_top5, found.regroup_top1, found.regroup_top5)
    return tuple(cell.correct for cell in cells)  # type: ignore[return-value]


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
    summary = summary_of(SUCCESS)
    assert (summary.failed, summary.attacked) == (1, True)
    counts: GroupCounts = getattr(summary, group)
    for k in (1, 2):
        found = accuracies(counts, k, "both")
        assert correct(found) == (*softmax, top1[k - 1], top5[k - 1])
        assert {found.of(measure).total for measure in MEASURES} == {n}
    np.testing.assert_allclose(tap_accuracy(counts), np.array(top1[::-1]) / n)


def test_a_rule_that_falls_back_is_one_sentence_unless_k_is_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clean = summary_of(SUCCESS)  # one tap alone is right on one of the two correct samples
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen_k(clean, 0.75, None)[1] == 1
        (told,) = capsys.readouterr().err.splitlines()
        assert told.startswith("choosing k: no tap reaches an accuracy of 0.75 alone (best 0.500)")
        rule, k = chosen_k(clean, 0.75, 2)
        assert (rule.k, rule.reached, k) == (1, False, 2)
        assert chosen_k(clean, 0.5, None)[1] == 2, "both taps reach a half"
    assert capsys.readouterr().err == ""


def test_signs_are_counted_apart() -> None:
    counts = summarise(votes(SUCCESS))["all"]
    assert counts["top1"] == {"both": [2, 2], "positive": [2, 1], "negative": [2, 1]}
    assert counts["tap_top5"] == {"both": [4, 3], "positive": [3, 2], "negative": [3, 2]}
    read = summary_of(SUCCESS).all
    assert read.top1.of("positive") == (2, 1)
    assert read.model_dump(mode="json") == counts


def test_clean_images_have_no_successes() -> None:
    summary = summary_of([None] * 5)
    assert not summary.attacked
    assert summary.success.n == 0
    nothing = accuracies(summary.success, 1, "both").softmax_top1
    assert (nothing.accuracy, nothing.total) == (None, 0)
    assert str(nothing) == "-"


def test_a_row_of_the_table() -> None:
    row = accuracy_row("PGD", summary_of(SUCCESS), 2, "positive")
    assert (row.images, row.k, row.signs) == ("PGD", 2, "positive")
    assert (row.attempted, row.failed, row.success) == (4, 1, 2)
    assert row.over_success is not None
    # Softmax's top-1 and top-5, and REGroup's.
    assert correct(row.over_all) == (2, 3, 1, 3)
    assert correct(row.over_success) == (0, 1, 0, 1)
    assert row.accuracy("S", "softmax_top5") == row.over_success.softmax_top5
    assert row.accuracy("all", "regroup_top1") == row.over_all.regroup_top1
    clean = accuracy_row("clean", summary_of([None] * 5), 1, "both")
    assert clean.success is None
    assert clean.over_success is None
    assert {clean.accuracy("S", measure) for measure in MEASURES} == {None}
