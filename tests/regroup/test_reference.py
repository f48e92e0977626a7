"""The oracle itself, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from regroup import reference

IDENTITY = np.stack([np.eye(2), np.eye(2)])  # KL(e_y || p) = -log p_y


def test_accumulator_of_a_convolution() -> None:
    phi = np.array([[[[1.0], [-2.0]], [[3.0], [0.5]]]])  # (1, 2 channels, 2, 1)
    assert reference.accumulator(phi, 1).tolist() == [[[1.0, 3.5], [2.0, 0.0]]]


def test_accumulator_of_a_linear_layer_over_tokens() -> None:
    phi = np.array([[[1.0, -2.0], [3.0, -4.0]]])  # (1, 2 tokens, 2 channels)
    assert reference.accumulator(phi, 2).tolist() == [[[4.0, 0.0], [0.0, 6.0]]]


def test_pmf() -> None:
    assert reference.pmf(np.array([1.0, 3.0])) == pytest.approx([0.25, 0.75])
    assert reference.pmf(np.zeros(4)) == pytest.approx([0.25] * 4)
    assert reference.pmf(np.array([1.0, 0.0]), delta=1.0) == pytest.approx([2 / 3, 1 / 3])


def test_class_weights() -> None:
    weights = reference.class_weights([0, 1, 0], [0.9, 0.5, 0.3], "softmax")
    assert weights == pytest.approx([0.75, 1.0, 0.25])
    assert reference.class_weights([0, 1, 0], [0.9, 0.5, 0.3], "uniform") == [0.5, 1.0, 0.5]


def test_mixture() -> None:
    assert reference.mixture([[1.0, 0.0], [0.5, 0.5]], [0.75, 0.25]) == [0.875, 0.125]


def test_kl_of_two_classes_and_two_channels() -> None:
    mixtures = np.array([[0.5, 0.5], [0.25, 0.75]])
    # pmf (1/4, 3/4): 1/2 log 2 + 1/2 log 2/3 = 1/2 log 4/3, and 0
    found = reference.divergences(np.array([1.0, 3.0]), mixtures)
    assert found == pytest.approx([0.5 * math.log(4 / 3), 0.0], abs=1e-12)


def test_kl_has_the_class_on_the_left_and_zeros_contribute_nothing() -> None:
    assert reference.kl([1.0, 0.0], [0.25, 0.75]) == pytest.approx(math.log(4))
    zero_accumulator = reference.pmf(np.array([0.0, 1.0]))
    assert reference.kl([1.0, 0.0], zero_accumulator) == pytest.approx(20 * math.log(10))


def test_ranks_and_borda() -> None:
    assert reference.ranks([0.5, 0.125, 0.25]) == [3, 1, 2]
    assert reference.ranks([0.5, 0.125, 0.5, 0.5]) == [2, 1, 3, 4]
    assert reference.borda([3, 1, 2]) == [0, 2, 1]


def test_three_voters_decide() -> None:
    voters = [[1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [3.0, 1.0, 2.0]]  # 2 1 0, 2 0 1, 0 2 1
    assert reference.class_order(voters) == [0, 1, 2]
    assert reference.class_order(voters[1:]) == [0, 1, 2]  # 2 2 2
    assert reference.class_order(voters[2:]) == [1, 2, 0]


def test_three_voters_tie() -> None:
    voters = [[1.0, 2.0, 3.0], [5.0, 1.0, 4.0], [2.0, 3.0, 1.0]]  # 2 1 0, 0 2 1, 1 0 2: all 3
    assert reference.class_order(voters) == [0, 1, 2]
    assert reference.class_order(voters, "divergence") == [1, 0, 2]  # sums 8, 6, 8


def test_the_last_taps_and_the_chosen_signs_vote() -> None:
    accumulators = [np.array([[1.0, 9.0], [9.0, 1.0]]), np.array([[3.0, 1.0], [1.0, 3.0]])]
    mixtures = [IDENTITY, IDENTITY]

    def sums(k: int, signs: str) -> list[int]:
        return reference.borda_sums(accumulators, mixtures, k, signs)

    assert sums(1, "positive") == [1, 0]
    assert sums(1, "negative") == [0, 1]
    assert sums(2, "positive") == [1, 1]
    assert sums(2, "both") == [2, 2]
    assert reference.predict(accumulators, mixtures, 1, "negative") == 1
    assert reference.true_rank(accumulators, mixtures, 1, 1, "positive") == 2
    # D_0 = -log(1/10 3/4), D_1 = -log(9/10 1/4)
    assert reference.predict(accumulators, mixtures, 2, "positive") == 0
    assert reference.predict(accumulators, mixtures, 2, "positive", "divergence") == 1
