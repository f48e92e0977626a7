"""The 75 % rule, by hand and against the literal reference."""

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regroup import reference
from regroup.choose_k import KChoice, choose_k
from regroup.errors import ConfigurationError


@pytest.mark.parametrize(
    ("accuracy", "k", "count"),
    [
        ([0.25, 0.5, 0.8, 0.9, 0.94, 0.55], 4, 3),  # weak logits vote with the run before them
        ([0.8, 0.5, 0.9, 0.94, 0.8], 3, 4),  # a good early tap beyond a gap counts, and is cut off
        ([0.3, 0.5, 0.76, 0.8, 0.9], 3, 3),  # rising: both numbers agree
        ([0.75, 0.75], 2, 2),  # reaching is enough
        ([0.2, 0.5, 0.9], 1, 1),  # the logits alone
        ([0.9, 0.5, 0.9], 1, 2),
        ([0.9], 1, 1),
        ([0.9, 0.5], 2, 1),
    ],
)
def test_by_hand(accuracy: list[float], k: int, count: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_k(accuracy, 0.75) == KChoice(k, count, 0.75, True)


@pytest.mark.parametrize(
    ("accuracy", "count", "text"),
    [
        ([0.2, 0.5, 0.6], 0, "no tap reaches .* 0.75 .*0.600"),
        ([0.5], 0, "no tap"),
        ([0.9, 0.5, 0.6], 1, "none of the last, only 1 earlier"),
    ],
)
def test_nothing_reaches_the_threshold(accuracy: list[float], count: int, text: str) -> None:
    with pytest.warns(UserWarning, match=text):
        assert choose_k(accuracy) == KChoice(1, count, 0.75, False)


@pytest.mark.filterwarnings("ignore:choosing k")
@given(st.lists(st.sampled_from([0.0, 0.5, 0.7, 0.75, 0.8, 1.0]), min_size=1, max_size=8))
def test_as_the_reference(accuracy: list[float]) -> None:
    found = choose_k(accuracy, 0.75)
    assert (found.k, found.count, found.reached) == reference.choose_k(accuracy, 0.75)


@pytest.mark.parametrize(
    ("accuracy", "threshold"),
    [([], 0.5), ([0.5, float("nan")], 0.5), ([1.5], 0.5), ([0.5], 0.0), ([0.5], 1.1), ([0.5], 75)],
)
def test_bad_input(accuracy: list[float], threshold: float) -> None:
    with pytest.raises(ConfigurationError):
        choose_k(accuracy, threshold)
