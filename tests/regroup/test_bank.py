"""Banks: sample selection, weights, mixtures and mergeable sums, against the reference."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import ArrayLike, NDArray

from regroup import bank, reference
from regroup.bank import (
    Bank,
    BankStatistics,
    Weighting,
    class_weights,
    partial_mixture,
    pmf,
)
from regroup.bank_samples import BankSampler
from regroup.errors import ConfigurationError, RegroupError

TAPS = (("a", 3), ("b", 1))
ENTRIES = st.one_of(st.just(0.0), st.floats(0, 2.0**20, width=32))


@st.composite
def samples(draw: st.DrawFn) -> tuple[list[NDArray[np.float32]], NDArray[np.int64], NDArray[float]]:  # type: ignore[type-var]
    """Accumulators of TAPS, labels that cover classes 0 and 1, and confidences."""
    n = draw(st.integers(2, 8))
    accumulators = [draw(hnp.arrays(np.float32, (n, 2, c), elements=ENTRIES)) for _, c in TAPS]
    labels = np.array([0, 1, *draw(st.lists(st.integers(0, 1), min_size=n - 2, max_size=n - 2))])
    confidences = draw(hnp.arrays(np.float64, n, elements=st.floats(0.01, 1)))
    return accumulators, labels, confidences


def expected_mixture(
    accumulators: NDArray[np.float32], labels: NDArray[np.int64], weights: list[float], y: int
) -> NDArray[np.float64]:
    rows = np.flatnonzero(labels == y)
    return np.array(
        [
            reference.mixture(
                [reference.pmf(accumulators[j, sign]) for j in rows], [weights[j] for j in rows]
            )
            for sign in (0, 1)
        ]
    )


def test_pmf() -> None:
    found = pmf(np.array([[1, 3], [0, 0]], np.float32))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [[0.25, 0.75], [0.5, 0.5]], rtol=1e-15)
    np.testing.assert_allclose(pmf(np.array([1.0, 0.0]), delta=1.0), [2 / 3, 1 / 3], rtol=1e-15)


@settings(max_examples=60, deadline=None)
@given(samples(), st.sampled_from(["softmax", "uniform"]))
def test_mixtures_are_the_reference(
    drawn: tuple[list[NDArray[np.float32]], NDArray[np.int64], NDArray[np.float64]],
    weighting: Weighting,
) -> None:
    """Both ways to a bank: weights normalised beforehand, and sums normalised at the end."""
    accumulators, labels, confidences = drawn
    statistics = BankStatistics.zeros(TAPS, 2)
    statistics.update(accumulators, labels, confidences, weighting)
    bank = statistics.finalise()
    weights = class_weights(labels, confidences, 2, weighting)
    literal = reference.class_weights(labels.tolist(), confidences.tolist(), weighting)
    np.testing.assert_allclose(weights, literal, rtol=1e-12)
    for accumulator, mixtures in zip(accumulators, bank.mixtures, strict=True):
        direct = partial_mixture(accumulator, labels, weights, 2)
        for y in (0, 1):
            expected = expected_mixture(accumulator, labels, literal, y)
            np.testing.assert_allclose(mixtures[:, y], expected, rtol=1e-12)
            np.testing.assert_allclose(direct[:, y], expected, rtol=1e-12)
    assert bank.counts.tolist() == np.bincount(labels).tolist()


@settings(max_examples=40, deadline=None)
@given(samples(), st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_any_split_in_any_order_gives_the_same_bank(
    drawn: tuple[list[NDArray[np.float32]], NDArray[np.int64], NDArray[np.float64]],
    seed: int,
    parts: int,
) -> None:
    accumulators, labels, confidences = drawn
    whole = BankStatistics.zeros(TAPS, 2)
    whole.update(accumulators, labels, confidences)
    merged = BankStatistics.zeros(TAPS, 2)
    rows = np.random.default_rng(seed).permutation(len(labels))
    for chosen in np.array_split(rows, parts):  # some are empty
        part = BankStatistics.zeros(TAPS, 2)
        part.update([a[chosen] for a in accumulators], labels[chosen], confidences[chosen])
        merged.merge(part)
    for one, two in zip(whole.finalise().mixtures, merged.finalise().mixtures, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=0)


def test_a_mixture_by_hand() -> None:
    accumulators = np.array([[[1, 0], [1, 1]], [[1, 3], [3, 1]]], np.float32)
    statistics = BankStatistics.zeros([("only", 2)], 1)
    statistics.update([accumulators], np.array([0, 0]), np.array([0.9, 0.3]))
    # weights 3/4 and 1/4: positive 3/4 (1, 0) + 1/4 (1/4, 3/4), negative 3/4 (1/2, 1/2) + ...
    expected = [[[0.8125, 0.1875]], [[0.5625, 0.4375]]]
    np.testing.assert_allclose(statistics.finalise().mixtures[0], expected, rtol=1e-12)


def test_pieces_of_any_size_give_the_same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples are weighted in pieces that a cache holds; classes span several of them."""
    random = np.random.default_rng(0)
    accumulators = random.lognormal(size=(23, 2, 7)).astype(np.float32)
    accumulators[3] = 0.0
    labels, weights = random.integers(0, 3, 23), random.random(23)
    expected = np.zeros((2, 4, 7))
    for row, label in enumerate(labels):
        expected[:, label] += weights[row] * pmf(accumulators[row])
    for rows in (1, 2, 10, 23, 100):
        monkeypatch.setattr(bank, "_PIECE", 7 * rows)
        sums = np.ones((2, 4, 7))
        bank.add_mixture(sums, accumulators, labels, weights)
        np.testing.assert_allclose(sums - 1, expected, rtol=1e-12, atol=1e-15)
        bad = accumulators.copy()
        bad[22, 1, 6] = np.nan
        with pytest.raises(RegroupError, match="NaN"):
            bank.add_mixture(sums, bad, labels, weights)


IDS = [f"class/{i:03d}.png" for i in range(40)]
LABELS = np.arange(40) % 3


def select(
    ids: Sequence[str],
    labels: ArrayLike,
    predictions: ArrayLike,
    num_classes: int,
    per_class: int,
    seed: int,
    class_names: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    sampler = BankSampler(num_classes, per_class, seed)
    sampler.update(range(len(ids)), ids, labels, predictions, np.ones(len(ids)))
    return sampler.finish(class_names).rows


def test_selected_samples_are_the_first_by_hash() -> None:
    predictions = LABELS.copy()
    predictions[[0, 3, 4]] = [1, -1, -1]

    def key(row: int) -> bytes:
        return hashlib.sha256(f"7\0{IDS[row]}".encode()).digest()

    usable = [r for r in range(40) if r not in (0, 3, 4)]
    expected = [
        row for y in range(3) for row in sorted((r for r in usable if LABELS[r] == y), key=key)[:5]
    ]
    found = select(IDS, LABELS, predictions, 3, 5, 7)
    assert found.dtype == np.int64
    assert found.tolist() == sorted(expected)


def chosen_ids(seed: int, rows: NDArray[np.int64], per_class: int = 4) -> set[str]:
    ids = [IDS[row] for row in rows]
    found = select(ids, LABELS[rows], LABELS[rows], 3, per_class, seed)
    return {ids[row] for row in found}


def test_selection_does_not_depend_on_the_order_of_rows() -> None:
    shuffled = np.random.default_rng(0).permutation(40)
    assert chosen_ids(1, np.arange(40)) == chosen_ids(1, shuffled)
    assert chosen_ids(1, np.arange(40)) != chosen_ids(2, np.arange(40))
    assert chosen_ids(1, np.arange(40), 3) < chosen_ids(1, np.arange(40), 4)


@given(cuts=st.lists(st.integers(0, 40), max_size=6), order=st.permutations(range(7)))
def test_selection_does_not_depend_on_the_blocks(cuts: list[int], order: list[int]) -> None:
    """However the rows are cut into blocks, and in whatever order these come."""
    confidences = np.linspace(0.1, 0.9, 40)
    whole, blocks = BankSampler(3, 5, 7), BankSampler(3, 5, 7)
    whole.update(range(40), IDS, LABELS, LABELS, confidences)
    edges = [0, *sorted(cuts), 40]
    spans = [slice(*edge) for edge in itertools.pairwise(edges)]
    for span in [spans[i] for i in order if i < len(spans)]:
        blocks.update(
            range(span.start, span.stop), IDS[span], LABELS[span], LABELS[span], confidences[span]
        )
    one, many = whole.finish(), blocks.finish()
    assert one.rows.tolist() == many.rows.tolist()
    assert one.labels.tolist() == many.labels.tolist() == LABELS[one.rows].tolist()
    assert one.confidences.tolist() == many.confidences.tolist()
    np.testing.assert_array_equal(one.confidences, confidences[one.rows])


def test_a_class_with_fewer_gives_all_and_failed_rows_none() -> None:
    labels = np.array([0, 0, 1, -1])
    predictions = np.array([0, 0, 1, -1])  # a failed row may have no label either
    assert select(IDS[:4], labels, predictions, 2, 50, 0).tolist() == [0, 1, 2]


def test_a_class_without_usable_samples_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"no correctly classified sample of class dog:"):
        select(IDS[:2], [0, 1], [0, 0], 2, 5, 0, ["cat", "dog"])
    with pytest.raises(ConfigurationError, match=r"class 0, 1, 2, 3, 4 and 2 more"):
        select([], [], [], 7, 5, 0)


@pytest.mark.parametrize(
    ("ids", "labels", "predictions", "per_class"),
    [(1, [0], [0], 0), (2, [0], [0], 1), (1, [0], [0, 0], 1), (2, [0, 1], [0, 1], 1)],
)
def test_bad_selections(
    ids: int, labels: list[int], predictions: list[int], per_class: int
) -> None:
    with pytest.raises(ConfigurationError):
        select(IDS[:ids], labels, predictions, 1, per_class, 0)


def one_sample(label: int = 0, confidence: float = 0.5, classes: int = 1) -> BankStatistics:
    statistics = BankStatistics.zeros(TAPS, classes)
    accumulators = [np.ones((1, 2, channels)) for _, channels in TAPS]
    statistics.update(accumulators, np.array([label]), np.array([confidence]))
    return statistics


def test_finalise_names_a_class_without_samples_or_weight() -> None:
    with pytest.raises(ConfigurationError, match="no correctly classified sample of class dog"):
        one_sample(classes=2).finalise(["cat", "dog"])
    with pytest.raises(ConfigurationError, match="no confidence at all of class 0"):
        one_sample(confidence=0.0).finalise()
    with pytest.raises(ConfigurationError, match="no confidence at all of class 1"):
        class_weights(np.array([0, 1]), np.array([0.5, 0.0]), 3, "softmax")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_bad_values_are_refused_and_nothing_is_added(bad: float) -> None:
    statistics = one_sample()
    before = [sums.copy() for sums in statistics.sums]
    good, broken = np.ones((1, 2, 3)), np.full((1, 2, 1), bad)
    with pytest.raises(RegroupError, match="accumulators"):
        statistics.update([good, broken], np.array([0]), np.array([0.5]))
    with pytest.raises(RegroupError, match="confidences"):
        statistics.update([good, np.ones((1, 2, 1))], np.array([0]), np.array([bad]))
    np.testing.assert_equal(statistics.sums, before)
    assert (statistics.count.tolist(), statistics.weight.tolist()) == ([1], [0.5])


@pytest.mark.parametrize("label", [-1, 1])
def test_labels_out_of_range(label: int) -> None:
    with pytest.raises(ConfigurationError, match=f"label {label}"):
        one_sample(label)
    with pytest.raises(ConfigurationError, match=f"label {label}"):
        partial_mixture(np.ones((1, 2, 3)), np.array([label]), np.ones(1), 1)


def test_other_models_do_not_mix() -> None:
    statistics = one_sample()
    with pytest.raises(ConfigurationError, match="another model"):
        statistics.update([np.ones((1, 2, 3))], np.array([0]), np.array([0.5]))
    for taps in ([("a", 3), ("c", 1)], [("a", 3), ("b", 2)]):
        with pytest.raises(ConfigurationError, match="another model"):
            statistics.merge(BankStatistics.zeros(taps, 1))
    with pytest.raises(ConfigurationError, match="weighting"):
        class_weights(np.array([0]), np.ones(1), 1, "cosine")  # type: ignore[arg-type]


def test_the_last_taps_of_a_bank() -> None:
    bank = one_sample().finalise()
    assert bank.last(1).taps == ("b",)
    assert bank.last(1).mixtures[0] is bank.mixtures[1]
    assert bank.last(2).taps == ("a", "b")
    for k in (0, 3, -1):
        with pytest.raises(ConfigurationError, match="k is from 1 to 2"):
            bank.last(k)


def test_a_bank_whose_parts_do_not_fit() -> None:
    bank = one_sample().finalise()
    a, b = bank.mixtures
    broken: list[tuple[NDArray[np.float64], ...]] = [
        (a,),
        (a, b[:1]),
        (a, b[0]),
        (a, 2 * b),
        (a * np.nan, b),
        (np.array([[[2.0, -1.0]], [[2.0, -1.0]]]), b),
    ]
    for mixtures in broken:
        with pytest.raises(ConfigurationError):
            replace(bank, mixtures=mixtures)
    with pytest.raises(ConfigurationError):
        Bank((), (), np.zeros(1, np.int64))
