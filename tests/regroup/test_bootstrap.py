"""Bootstrap replicates of a bank's samples: drawn with replacement, by hash."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regroup.bank_samples import BankSampler, BankSamples


def samples(
    counts: list[int], order: list[int] | None = None, replicate: int | None = None
) -> BankSamples:
    """Samples of classes with the given sizes, whose rows come in `order`."""
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = np.arange(len(labels))
    sampler = BankSampler(len(counts), 50, seed=3)
    for row in rows.tolist() if order is None else order:
        confidence = [0.5 + row / 1000]
        sampler.update([row], [f"id-{row}"], [labels[row]], [labels[row]], confidence)
    return sampler.finish(replicate=replicate)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 9), st.data())
def test_as_many_of_each_class_whatever_the_order_of_rows(
    counts: list[int], replicate: int, data: st.DataObject
) -> None:
    found = samples(counts, replicate=replicate)
    assert np.bincount(found.labels, minlength=len(counts)).tolist() == counts
    assert (np.diff(found.rows) >= 0).all()
    whole = samples(counts)
    own = dict(
        zip(whole.rows.tolist(), zip(whole.labels, whole.confidences, strict=True), strict=True)
    )
    for row, label, confidence in zip(found.rows, found.labels, found.confidences, strict=True):
        assert own[int(row)] == (label, confidence)
    other = samples(counts, data.draw(st.permutations(range(sum(counts)))), replicate)
    np.testing.assert_array_equal(other.rows, found.rows)


def test_draws_are_uniform_and_independent() -> None:
    """Of 4 samples, 4 draws: each is drawn with chance 1/4; one is left out with (3/4)^4."""
    replicates = [Counter(samples([4], replicate=r).rows.tolist()) for r in range(2000)]
    drawn = sum(replicates, Counter[int]())
    for row in range(4):
        assert drawn[row] / 8000 == pytest.approx(0.25, abs=0.02)
        left_out = sum(row not in each for each in replicates) / 2000
        assert left_out == pytest.approx(0.75**4, abs=0.04)
