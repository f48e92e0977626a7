"""Ranks by sorting integers against torch's stable argsort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from regroup.kernels.ranking import ascending

SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1.1754944e-38, 3.4e38, -3.4e38, np.inf, -np.inf]
FLOATS = st.one_of(st.sampled_from(SPECIAL), st.floats(width=32, allow_nan=False))


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=FLOATS))
def test_the_order_is_that_of_a_stable_argsort(values: np.ndarray) -> None:
    expected = torch.from_numpy(values).argsort(dim=1, stable=True)
    assert torch.equal(ascending(torch.from_numpy(values)), expected)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("classes", [1, 10, 1000])
def test_many_rows_with_ties_on_any_number_of_threads(
    threads: int, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    values = torch.randn(700, classes, generator=torch.Generator().manual_seed(0)).mul(3).round()
    assert torch.equal(ascending(values), values.argsort(dim=1, stable=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_precisions(dtype: torch.dtype) -> None:
    values = torch.randn(5, 9).to(dtype)
    assert torch.equal(ascending(values), values.argsort(dim=1, stable=True))


def test_no_rows() -> None:
    assert ascending(torch.empty(0, 4)).shape == (0, 4)
    # A view that is not contiguous, as divergences of equal mixtures are.
    values = torch.randn(6, 5).T
    assert torch.equal(ascending(values), values.argsort(dim=1, stable=True))
