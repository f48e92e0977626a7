"""The scorer against the literal reference, and against votes counted by hand."""

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from regroup import reference, scoring
from regroup.bank import SIGN_CHOICES, Bank
from regroup.errors import ConfigurationError, RegroupError
from regroup.scoring import Scorer, TieBreak, Votes

Problem = tuple[Bank, list[NDArray[np.float32]], NDArray[np.int64]]
DTYPES = [(torch.float32, 2e-6), (torch.float64, 1e-14)]  # and the error relative to the scale
TIE_BREAKS: list[TieBreak] = ["class", "divergence"]


def bank_of(*mixtures: NDArray[np.float64]) -> Bank:
    classes = mixtures[0].shape[1]
    names = tuple(f"tap{i}" for i in range(len(mixtures)))
    return Bank(names, mixtures, np.ones(classes, np.int64))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Few classes and channels, many zeros and equal entries: identical classes, ties."""
    n, classes = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    channels = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    entries = st.one_of(st.sampled_from([0.0, 1.0, 3.0]), st.floats(0, 2.0**30, width=32))
    mixtures = []
    for c in channels:
        parts = draw(hnp.arrays(np.float64, (2, classes, c), elements=st.integers(0, 3)))
        parts[parts.sum(-1) == 0] = 1
        mixtures.append(parts / parts.sum(-1, keepdims=True))
    accumulators = [draw(hnp.arrays(np.float32, (n, 2, c), elements=entries)) for c in channels]
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    return bank_of(*mixtures), accumulators, labels


def random_problem(n: int, classes: int, channels: list[int], seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    mixtures = [rng.dirichlet(np.ones(c), size=(2, classes)) for c in channels]
    accumulators = [rng.lognormal(size=(n, 2, c)).astype(np.float32) for c in channels]
    return bank_of(*mixtures), accumulators, rng.integers(0, classes, n)


def literal_divergences(problem: Problem) -> list[NDArray[np.float64]]:
    bank, accumulators, labels = problem
    return [
        np.array(
            [
                [reference.divergences(a[n, sign], mixtures[sign]) for sign in (0, 1)]
                for n in range(len(labels))
            ]
        )
        for a, mixtures in zip(accumulators, bank.mixtures, strict=True)
    ]


def scale_of(accumulator: NDArray[np.float32]) -> float:
    """Size of the terms that a divergence is the difference of: |log pmf| and logs of a and sum."""
    shifted = accumulator.astype(np.float64) + reference.DELTA
    return float(1 + abs(np.log(shifted)).max() + abs(np.log(shifted.sum(-1))).max())


@pytest.mark.parametrize(("dtype", "error"), DTYPES)
@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_divergences(problem: Problem, dtype: torch.dtype, error: float) -> None:
    bank, accumulators, _ = problem
    found = Scorer(bank, dtype=dtype).divergences(accumulators)
    for a, fast, literal in zip(accumulators, found, literal_divergences(problem), strict=True):
        assert fast.dtype == dtype
        np.testing.assert_allclose(fast.numpy(), literal, rtol=0, atol=error * scale_of(a))


def cases(votes: Votes) -> Iterator[tuple[int, int, list[int], int, int]]:
    """(sample, sign choice, taps that vote, prediction, true rank) of everything in `votes`."""
    samples, choices, taps = votes.prediction.shape
    for n in range(samples):
        for s in range(choices):
            for t in range(taps):
                last = list(range(taps - 1 - t, taps))
                yield n, s, last, votes.prediction[n, s, t], votes.true_rank[n, s, t]
                yield n, s, [t], votes.tap_prediction[n, s, t], votes.tap_true_rank[n, s, t]


def voters_of(
    divergences: list[NDArray[np.float64]], n: int, s: int, taps: list[int]
) -> list[list[float]]:
    signs = reference.VOTERS[SIGN_CHOICES[s]]
    return [divergences[tap][n, sign].tolist() for tap in taps for sign in signs]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_votes_follow_exactly_from_the_divergences(problem: Problem, dtype: torch.dtype) -> None:
    """Ranks, Borda sums, predictions and true ranks hold no rounding of their own."""
    bank, accumulators, labels = problem
    scorer = Scorer(bank, dtype=dtype)
    divergences = [d.double().numpy() for d in scorer.divergences(accumulators)]
    for n, s, taps, prediction, true_rank in cases(scorer.votes(accumulators, labels)):
        order = reference.class_order(voters_of(divergences, n, s, taps))
        assert prediction == order[0]
        assert true_rank == order.index(labels[n]) + 1


def rows_of(bank: Bank, s: int, taps: list[int]) -> list[list[bytes]]:
    """The mixtures of every class as the voters of `voters_of` know them."""
    signs = reference.VOTERS[SIGN_CHOICES[s]]
    return [[row.tobytes() for row in bank.mixtures[tap][sign]] for tap in taps for sign in signs]


def decided(voters: list[list[float]], rows: list[list[bytes]], tie_break: str, gap: float) -> bool:
    """Whether no comparison that matters is closer than `gap`, those of identical classes apart."""
    classes = range(len(voters[0]))
    compared: list[tuple[list[float], list[Any]]] = list(zip(voters, rows, strict=True))
    if tie_break == "divergence":
        summed = [math.fsum(voter[y] for voter in voters) for y in classes]
        compared.append((summed, [[row[y] for row in rows] for y in classes]))
    return all(
        abs(values[a] - values[b]) > gap or names[a] == names[b]
        for values, names in compared
        for a in classes
        for b in classes
    )


@pytest.mark.parametrize("tie_break", TIE_BREAKS)
@pytest.mark.parametrize(("dtype", "error"), DTYPES)
@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_votes(problem: Problem, dtype: torch.dtype, error: float, tie_break: TieBreak) -> None:
    """All the way from accumulators, wherever the reference's comparisons are not a hair apart."""
    bank, accumulators, labels = problem
    literal = literal_divergences(problem)
    gap = 4 * error * len(accumulators) * max(map(scale_of, accumulators))
    votes = Scorer(bank, dtype=dtype, tie_break=tie_break).votes(accumulators, labels)
    for n, s, taps, prediction, true_rank in cases(votes):
        voters = voters_of(literal, n, s, taps)
        if decided(voters, rows_of(bank, s, taps), tie_break, gap):
            order = reference.class_order(voters, tie_break)
            assert (prediction, true_rank) == (order[0], order.index(labels[n]) + 1)


@pytest.mark.parametrize("tie_break", TIE_BREAKS)
def test_votes_of_a_larger_problem(tie_break: TieBreak) -> None:
    problem = bank, accumulators, labels = random_problem(20, 7, [5, 9, 4, 7])
    literal, compared = literal_divergences(problem), 0
    votes = Scorer(bank, tie_break=tie_break).votes(accumulators, labels)
    everything = list(cases(votes))
    for n, s, taps, prediction, true_rank in everything:
        voters = voters_of(literal, n, s, taps)
        if decided(voters, rows_of(bank, s, taps), tie_break, 1e-6):
            order = reference.class_order(voters, tie_break)
            assert (prediction, true_rank) == (order[0], order.index(labels[n]) + 1)
            compared += 1
    assert compared > 0.99 * len(everything)
    assert votes.prediction.dtype == votes.tap_true_rank.dtype == np.int32
    assert votes.prediction.shape == (20, 3, 4)


def one_hot_bank(classes: int, taps: int) -> Bank:
    """KL(e_y || p) = -log p_y: the larger the entry, the better the class."""
    return bank_of(*[np.stack([np.eye(classes)] * 2)] * taps)


BY_HAND = [
    np.array([[[3, 2, 1], [1, 3, 2]]], np.float32),  # Borda 2 1 0 and 0 2 1
    np.array([[[2, 1, 3], [5, 5, 1]]], np.float32),  # Borda 1 0 2 and 2 1 0 (tied by class)
]


def test_votes_by_hand() -> None:
    votes = Scorer(one_hot_bank(3, 2)).votes(BY_HAND, np.array([2]))
    # (both, positive, negative) x (k = 1: 3 1 2, 1 0 2, 2 1 0; k = 2: 5 4 3, 3 1 2, 2 3 1)
    assert votes.prediction.tolist() == [[[0, 0], [2, 0], [0, 1]]]
    assert votes.true_rank.tolist() == [[[2, 3], [1, 2], [3, 3]]]
    # the first tap alone: 2 3 1, 2 1 0, 0 2 1; the second: as k = 1
    assert votes.tap_prediction.tolist() == [[[1, 0], [0, 2], [1, 0]]]
    assert votes.tap_true_rank.tolist() == [[[3, 2], [3, 1], [2, 3]]]


@pytest.mark.parametrize(
    ("k", "signs", "expected"),
    [
        (1, "both", [3, 1, 2]),
        (1, "positive", [1, 0, 2]),
        (1, "negative", [2, 1, 0]),
        (2, "both", [5, 4, 3]),
        (2, "positive", [3, 1, 2]),
        (2, "negative", [2, 3, 1]),
    ],
)
def test_borda_sums_by_hand(k: int, signs: str, expected: list[int]) -> None:
    sums = Scorer(one_hot_bank(3, 2)).borda_sums(BY_HAND, k, signs)
    assert sums.tolist() == [expected]
    assert not sums.is_floating_point()


def test_tie_breaks_by_hand() -> None:
    # Borda 1 0 and 0 1; D_0 = -log(3/5 1/10), D_1 = -log(2/5 9/10)
    accumulators = [np.array([[[3, 2], [1, 9]]], np.float32)]
    for tie_break, winner in (("class", 0), ("divergence", 1)):
        scorer = Scorer(one_hot_bank(2, 1), tie_break=tie_break)  # type: ignore[arg-type]
        votes = scorer.votes(accumulators, np.array([winner]))
        assert votes.prediction[0, :, 0].tolist() == [winner, 0, 1]
        assert votes.true_rank[0, 0, 0] == 1
        assert scorer.votes(accumulators, np.array([1 - winner])).true_rank[0, 0, 0] == 2


@pytest.mark.parametrize("tie_break", TIE_BREAKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_classes_tie_exactly(dtype: torch.dtype, tie_break: TieBreak) -> None:
    bank, accumulators, labels = random_problem(33, 41, [301, 57])
    for m in bank.mixtures:
        m[:, 3, 1] += m[:, 3, 0]
        m[:, 3, 0] = 0
    signed = [np.where(m == 0, -0.0, m) for m in bank.mixtures]  # the same distributions
    both = zip(bank.mixtures, signed, strict=True)
    doubled = bank_of(*(np.concatenate([m, z, m[:, :5]], axis=1) for m, z in both))
    scorer = Scorer(doubled, dtype=dtype, tie_break=tie_break)
    for divergence in scorer.divergences(accumulators):
        assert torch.equal(divergence[..., :41], divergence[..., 41:82])
        assert torch.equal(divergence[..., :5], divergence[..., 82:])
    votes, twin = scorer.votes(accumulators, labels), scorer.votes(accumulators, labels + 41)
    assert (votes.prediction < 41).all()
    assert (votes.true_rank < twin.true_rank).all()


@pytest.mark.parametrize("value", [0.0, 3e38])
def test_equal_accumulators_are_uniform(value: float) -> None:
    """Zeros, and entries whose sum no float32 holds."""
    bank = bank_of(np.array([[[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]]] * 2))
    (divergence,) = Scorer(bank).divergences([np.full((1, 2, 2), value, np.float32)])
    kl = [0, math.log(2), 0.25 * math.log(0.5) + 0.75 * math.log(1.5)]
    np.testing.assert_allclose(divergence[0], [kl, kl], atol=2e-5)


def test_one_class_always_wins() -> None:
    bank, accumulators, labels = random_problem(4, 1, [3, 1])
    votes = Scorer(bank).votes(accumulators, labels)
    assert (votes.prediction == 0).all()
    assert (votes.true_rank == 1).all()
    assert Scorer(bank).borda_sums(accumulators, 2, "both").tolist() == [[0]] * 4


def test_no_samples() -> None:
    bank, accumulators, labels = random_problem(0, 3, [4, 2])
    votes = Scorer(bank).votes(accumulators, labels)
    assert votes.prediction.shape == votes.tap_true_rank.shape == (0, 3, 2)
    assert Scorer(bank).borda_sums(accumulators, 1, "both").shape == (0, 3)


@pytest.mark.parametrize(("classes", "taps"), [(40_000, 1), (5_000, 50)])
def test_sums_of_very_many_classes_do_not_overflow(classes: int, taps: int) -> None:
    """2 taps classes^2 > 2^31: as large as keys get where all voters agree."""
    rng = np.random.default_rng(0)
    bank = bank_of(*[np.stack([rng.dirichlet(np.ones(2), size=classes)] * 2)] * taps)
    accumulators = [rng.lognormal(size=(2, 1, 2)).repeat(2, axis=1).astype(np.float32)] * taps
    sums = Scorer(bank).borda_sums(accumulators, taps, "both").numpy()
    votes = Scorer(bank).votes(accumulators, sums.argmin(1))
    assert votes.prediction[:, 0, -1].tolist() == sums.argmax(1).tolist()
    assert (votes.true_rank[:, 0, -1] > classes - 100).all()


def test_accumulators_and_labels_may_be_tensors_or_read_only(
    recwarn: pytest.WarningsRecorder,
) -> None:
    bank, accumulators, labels = random_problem(5, 3, [4, 2])
    expected = Scorer(bank).votes(accumulators, labels)
    tensors = [torch.from_numpy(a) for a in accumulators]
    for a in accumulators:
        a.setflags(write=False)
    for found in (
        Scorer(bank).votes(tensors, torch.from_numpy(labels)),
        Scorer(bank).votes(accumulators, labels.astype(np.int32)),
    ):
        np.testing.assert_array_equal(found.prediction, expected.prediction)
        np.testing.assert_array_equal(found.true_rank, expected.true_rank)
    assert not recwarn.list


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("tie_break", TIE_BREAKS)
def test_cuda_gives_the_same_votes(tie_break: TieBreak) -> None:
    bank, accumulators, labels = random_problem(50, 20, [64, 32])
    votes = [
        Scorer(bank, device=device, dtype=torch.float64, tie_break=tie_break).votes(
            accumulators, labels
        )
        for device in ("cpu", "cuda")
    ]
    for field in ("prediction", "true_rank", "tap_prediction", "tap_true_rank"):
        np.testing.assert_array_equal(getattr(votes[0], field), getattr(votes[1], field))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_bad_accumulators(bad: float) -> None:
    bank, accumulators, labels = random_problem(3, 2, [4, 2])
    accumulators[1][2, 1, 0] = bad
    for call in (
        lambda: Scorer(bank).votes(accumulators, labels),
        lambda: Scorer(bank).divergences(accumulators),
        lambda: Scorer(bank).borda_sums(accumulators, 1, "both"),
    ):
        with pytest.raises(RegroupError, match="tap tap1 hold NaN"):
            call()


def test_accumulators_of_another_model() -> None:
    bank, accumulators, labels = random_problem(3, 2, [4, 2])
    first, second = accumulators
    wrong = [[first], [second, first], [first, second[:2]], [first, second[:, :1]]]
    for given_accumulators in wrong:
        with pytest.raises(ConfigurationError, match=r"1 taps|tap tap\d have shape"):
            Scorer(bank).votes(given_accumulators, labels)


@pytest.mark.parametrize("labels", [[0, -1, 1], [0, 2, 1], [0, 1], [[0, 1, 1]], [[0], [1], [1]]])
def test_bad_labels(labels: list[int]) -> None:
    bank, accumulators, _ = random_problem(3, 2, [4, 2])
    with pytest.raises(ConfigurationError, match="label"):
        Scorer(bank).votes(accumulators, np.array(labels))


@pytest.mark.parametrize(
    ("k", "signs", "text"),
    [(0, "both", "1 to 2"), (3, "both", "1 to 2"), (1, "neither", "both, positive, negative")],
)
def test_bad_choices(k: int, signs: str, text: str) -> None:
    bank, accumulators, _ = random_problem(3, 2, [4, 2])
    with pytest.raises(ConfigurationError, match=text):
        Scorer(bank).borda_sums(accumulators, k, signs)


def test_bad_options() -> None:
    bank, _, _ = random_problem(3, 2, [4])
    coin: Literal["coin"] = "coin"
    with pytest.raises(ConfigurationError, match="unknown tie break 'coin'"):
        Scorer(bank, tie_break=coin)  # type: ignore[arg-type]
    for delta in (0.0, -1.0, 1e-60, math.nan):
        with pytest.raises(ConfigurationError, match="delta"):
            Scorer(bank, delta=delta)


def test_votes_in_pieces_are_the_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, accumulators, labels = random_problem(17, 9, [5, 3])
    whole = Scorer(bank, dtype=torch.float64).votes(accumulators, labels)
    monkeypatch.setattr(scoring, "_PIECE", 30)
    pieces = Scorer(bank, dtype=torch.float64).votes(accumulators, labels)
    for name in ("prediction", "true_rank", "tap_prediction", "tap_true_rank"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))
