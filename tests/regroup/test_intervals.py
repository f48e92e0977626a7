"""Wilson intervals against published values and the closed forms at the ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regroup.errors import ConfigurationError
from regroup.intervals import wilson

Z2 = 1.959963984540054**2


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17: 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_values(successes: int, total: int, low: float, high: float) -> None:
    assert wilson(successes, total) == pytest.approx((low, high), abs=5e-5)


def test_closed_forms() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, Z2 / (10 + Z2)), abs=1e-12)
    half = (Z2 / (2 + Z2)) ** 0.5 / 2  # of 1 in 2: 1/2 -+ z / (2 sqrt(n + z^2))
    assert wilson(1, 2) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-12)


def test_of_nothing_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 10**6), st.data())
def test_within_bounds_and_symmetric(total: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, total))
    low, high = wilson(successes, total)
    assert 0 <= low <= successes / total <= high <= 1
    assert wilson(total - successes, total) == pytest.approx((1 - high, 1 - low), abs=1e-9)
    assert (wilson(0, total)[0], wilson(total, total)[1]) == (0.0, 1.0), "without rounding"
    wider = wilson(successes, total, 0.99)
    assert wider[0] <= low <= high <= wider[1]


@pytest.mark.parametrize("arguments", [(-1, 5), (6, 5), (1, 5, 0.0), (1, 5, 1.0)])
def test_impossible_counts(arguments: tuple[int, int]) -> None:
    with pytest.raises(ConfigurationError):
        wilson(*arguments)
