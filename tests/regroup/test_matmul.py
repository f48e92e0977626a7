"""The product of scoring: by either library, and as exact as float32 can be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from regroup.bank import Bank
from regroup.kernels.matmul import DivergenceProduct
from regroup.scoring import Scorer

MKLDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def matrices(rows: int, classes: int, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 2, channels, generator=generator)[:, 1]  # strided, as a sign is
    mixtures = torch.rand(classes, channels, generator=generator)
    return x, mixtures, torch.randn(classes, generator=generator)


@pytest.mark.parametrize("shape", [(1, 3, 5), (300, 100, 200), (17, 1000, 300), (0, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_either_way_it_is_the_product(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    x, mixtures, constants = (each.to(dtype) for each in matrices(*shape))
    expected = constants.double() - x.double() @ mixtures.double().T
    found = DivergenceProduct(mixtures, constants)(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not MKLDNN, reason="torch was built without oneDNN")
def test_large_products_are_onednns_and_what_ran_before_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Small ones are MKL's, before and after a large one."""
    x, mixtures, constants = matrices(300, 100, 200)
    product = DivergenceProduct(mixtures, constants)
    before = product(x[:20])
    assert torch.equal(before, torch.addmm(constants, x[:20], mixtures.T, alpha=-1))
    large = product(x)
    assert torch.equal(product(x[:20]), before)
    assert torch.equal(product(x), large)
    asked: list[int] = []
    linear = functional.linear

    def counted(*operands: Tensor) -> Tensor:
        asked.append(len(operands[0]))
        found: Tensor = linear(*operands)
        return found

    monkeypatch.setattr(functional, "linear", counted)
    product(x[:20])
    product(x)
    assert asked == [300]


def test_classes_that_hardly_differ_keep_float32s_digits() -> None:
    """Divergences of 1e-4: products of plain log PMFs, of size 7, are off by a fortieth."""
    generator = np.random.default_rng(0)
    base = generator.dirichlet(np.ones(1000))
    mixtures = base * np.exp(0.01 * generator.standard_normal((2, 50, 1000)))
    mixtures /= mixtures.sum(-1, keepdims=True)
    bank = Bank(("tap",), (mixtures,), np.ones(50, np.int64))
    accumulators = [(base * np.exp(0.01 * generator.standard_normal((90, 2, 1000)))).astype("f4")]
    exact = Scorer(bank, dtype=torch.float64).divergences(accumulators)[0]
    found = Scorer(bank).divergences(accumulators)[0]
    assert 5e-5 < exact.min() < exact.max() < 2e-4
    relative = ((found - exact) / exact).abs().max().item()
    assert relative < 5e-3
