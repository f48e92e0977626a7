"""Compiled Borda sums and decisions against those by torch: the same votes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from regroup import scoring
from regroup.bank import Bank
from regroup.kernels import borda
from regroup.scoring import Scorer, Votes

pytestmark = pytest.mark.skipif(borda.borda_kernels() is None, reason="Numba is not installed")

SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3.4e38, -3.4e38, np.inf, -np.inf]
FLOATS = st.one_of(st.sampled_from(SPECIAL), st.floats(width=32, allow_nan=False))
Divergences = list[tuple[NDArray[np.float32], NDArray[np.float32]]]


@st.composite
def divergences(draw: st.DrawFn) -> tuple[Divergences, NDArray[np.int64]]:
    """Of a few taps, (n, M) by sign, with ties; and labels."""
    n, classes, taps = draw(st.integers(1, 5)), draw(st.integers(1, 7)), draw(st.integers(1, 3))
    one = arrays(np.float32, (n, classes), elements=FLOATS)
    labels = draw(arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    return [(draw(one), draw(one)) for _ in range(taps)], labels


def literal(found: Divergences, label: int, row: int, signs: tuple[int, ...]) -> tuple[int, int]:
    """Prediction and true rank by eqs. 6 and 7, in plain Python: ties by class index."""
    classes = found[0][0].shape[1]
    sums = [0] * classes
    for pair in found:
        for sign in signs:
            values = [float(value) for value in pair[sign][row]]
            order = sorted(range(classes), key=lambda y: (values[y], y))
            for rank, y in enumerate(order, start=1):
                sums[y] += classes - rank
    winners = sorted(range(classes), key=lambda y: (-sums[y], y))
    return winners[0], 1 + winners.index(label)


@given(divergences())
@settings(deadline=None)
def test_decisions_are_those_of_the_definition(
    drawn: tuple[Divergences, NDArray[np.int64]],
) -> None:
    found, labels = drawn
    n, classes = found[0][0].shape
    sums = borda.BordaSums(labels, classes)
    for tap, (positive, negative) in enumerate(found):
        total, alone = np.empty((2, n, 3), np.int32), np.empty((2, n, 3), np.int32)
        sums.add(positive, negative, total, alone)
        for row, label in enumerate(labels.tolist()):
            for choice, signs in enumerate(scoring.VOTING_SIGNS.values()):
                expected = literal(found[: tap + 1], label, row, signs)
                assert tuple(total[:, row, choice].tolist()) == expected
                expected = literal([found[tap]], label, row, signs)
                assert tuple(alone[:, row, choice].tolist()) == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_votes_are_those_by_torch(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More samples than a piece, and classes alike, so that sums tie."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    generator = np.random.default_rng(0)
    mixtures = tuple(generator.dirichlet(np.ones(c), (2, 300)) for c in (4, 9))
    for each in mixtures:
        each[:, 150:] = each[:, :150]
    bank = Bank(("a", "b"), mixtures, np.ones(300, np.int64))
    accumulators = [generator.random((1000, 2, c), np.float32) for c in (4, 9)]
    labels = generator.integers(0, 300, 1000)

    def votes() -> Votes:
        return Scorer(bank).votes(accumulators, labels)

    compiled = votes()
    monkeypatch.setattr(scoring, "borda_kernels", lambda: None)
    plain = votes()
    for name in ("prediction", "true_rank", "tap_prediction", "tap_true_rank"):
        np.testing.assert_array_equal(getattr(compiled, name), getattr(plain, name))
