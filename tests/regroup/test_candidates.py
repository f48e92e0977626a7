"""Candidates: drawing in rounds gives the same samples as drawing from everything."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from regroup.bank_samples import BankSampler, BankSamples
from regroup.candidates import Candidates, CandidateSampler, first_depth, next_depths
from regroup.errors import ConfigurationError


def candidates(
    ids: list[str], labels: NDArray[np.int64], depths: Any, seed: int, cut: int = 0
) -> Candidates:
    """Found in two blocks, the first of `cut` rows."""
    sampler = CandidateSampler(depths, seed)
    for start, stop in ((0, cut), (cut, len(ids))):
        sampler.update(start, ids[start:stop], labels[start:stop])
    return sampler.finish()


def test_candidates_are_the_first_by_hash_of_each_class() -> None:
    ids = [f"n{i}" for i in range(30)]
    labels = np.arange(30) % 3
    found = candidates(ids, labels, [2, 0, 50], seed=5, cut=11)

    def key(row: int) -> bytes:
        return hashlib.sha256(f"5\0{ids[row]}".encode()).digest()

    first = sorted((r for r in range(30) if labels[r] == 0), key=key)[:2]
    expected = sorted([*first, *(r for r in range(30) if labels[r] == 2)])
    assert found.rows.tolist() == expected
    assert found.sample_ids == [ids[row] for row in expected]
    assert found.labels.tolist() == labels[expected].tolist()
    assert found.images.tolist() == [10, 10, 10]


def test_first_round_is_one_deviation_over_the_mean() -> None:
    # 50 / 0.75 = 66.7 on average; sqrt(50 * 0.25) / 0.75 = 4.7 more.
    assert first_depth(50, 0.75) == 72
    assert first_depth(50, 1.0) == 50
    assert first_depth(1, 0.5) == math.ceil((1 + math.sqrt(0.5)) / 0.5)
    rng = np.random.default_rng(0)
    enough = (rng.binomial(first_depth(50, 0.75), 0.75, 10_000) >= 50).mean()
    assert 0.8 < enough < 0.9


@pytest.mark.parametrize("accuracy", [0.0, -1.0, 1.01, math.nan])
def test_impossible_accuracy_is_refused(accuracy: float) -> None:
    with pytest.raises(ConfigurationError, match="expected accuracy"):
        first_depth(50, accuracy)
    with pytest.raises(ConfigurationError, match="0 samples per class"):
        first_depth(0, 0.5)


def test_only_classes_that_lack_samples_go_deeper() -> None:
    depths = np.array([72, 72, 72, 72])
    deeper = next_depths(depths, np.array([1300, 1300, 72, 80]), np.array([50, 30, 10, 1]), 50)
    # 31 of 74 (with one more of each kind) are right: 20 more need (20 + sqrt(20 * 43/74)) * 74/31.
    assert deeper.tolist() == [72, 72 + math.ceil((20 + math.sqrt(20 * 43 / 74)) * 74 / 31), 72, 80]
    few = next_depths(depths, np.array([1300] * 4), np.array([49] * 4), 50)
    assert (few == 72 + 18).all(), "a quarter more at least"
    assert (next_depths(deeper, deeper, np.zeros(4, np.int64), 50) == deeper).all()


@st.composite
def splits(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Labels of up to 60 images of three classes, each class there; which are correct."""
    n = draw(st.integers(3, 60))
    labels = [0, 1, 2, *draw(st.lists(st.integers(0, 2), min_size=n - 3, max_size=n - 3))]
    right = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return np.array(labels), np.array([True, True, True, *right[3:]])


def drawn(rows: list[int], labels: Any, right: Any, per_class: int, seed: int) -> BankSamples:
    sampler = BankSampler(3, per_class, seed)
    predictions = np.where(right, labels, 7)[rows]
    sampler.update(rows, [f"id{r}" for r in rows], labels[rows], predictions, np.ones(len(rows)))
    return sampler.finish()


@given(splits(), st.integers(1, 9), st.floats(0.05, 1), st.integers(0, 3))
def test_rounds_draw_what_everything_would_give(
    split: tuple[NDArray[np.int64], NDArray[np.bool_]], per_class: int, accuracy: float, seed: int
) -> None:
    labels, right = split
    ids = [f"id{row}" for row in range(len(labels))]
    depths = np.full(3, first_depth(per_class, accuracy))
    tried: set[int] = set()
    while True:
        found = candidates(ids, labels, depths, seed)
        tried |= set(found.rows.tolist())
        correct = np.bincount(found.labels[right[found.rows]], minlength=3)
        deeper = next_depths(depths, found.images, correct, per_class)
        if (deeper <= depths).all():
            break
        assert (deeper <= np.maximum(depths, found.images)).all()
        depths = deeper
    everything = drawn([*range(len(labels))], labels, right, per_class, seed)
    assert drawn(sorted(tried), labels, right, per_class, seed).rows.tolist() == (
        everything.rows.tolist()
    )
