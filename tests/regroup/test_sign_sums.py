"""Sums by sign, compiled, against torch in float64; every layout that a network makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regroup.kernels import sign_sums as module
from regroup.kernels.sign_sums import plain_sums, sign_sums
from regroup.kernels.threads import Team, team

pytestmark = pytest.mark.skipif(
    module.compiled_sign_kernels() is None, reason="Numba is not installed"
)
FORMATS = (torch.channels_last, torch.contiguous_format)


def responses(*shape: int, seed: int = 0) -> Tensor:
    """Log-normal sizes, so that sums are of unlike numbers; both signs."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.randn(shape, generator=generator).mul(2).exp()
    return size * torch.randn(shape, generator=generator).sign()


@st.composite
def tensors(draw: st.DrawFn) -> tuple[Tensor, int]:
    """A tensor of 2 to 4 axes and its channel axis, its memory laid out in any order of axes."""
    shape = draw(st.lists(st.integers(1, 40), min_size=2, max_size=4))
    phi = responses(*shape, seed=draw(st.integers(0, 99)))
    order = draw(st.permutations(range(phi.dim())))
    laid = phi.permute(order).contiguous()
    return laid.permute(np.argsort(order).tolist()), draw(st.integers(1, phi.dim() - 1))


@given(tensors())
@settings(max_examples=150, deadline=None)
def test_every_layout_against_float64(drawn: tuple[Tensor, int]) -> None:
    phi, axis = drawn
    expected = plain_sums(phi.double(), axis)
    torch.testing.assert_close(sign_sums(phi, axis), expected.float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("memory", FORMATS)
def test_long_sums_keep_their_small_sign(memory: torch.memory_format) -> None:
    """112 x 112 responses, one sign a millionth of the other."""
    phi = responses(2, 70, 112, 112).abs()
    phi[:, :, ::16, ::16] *= -1e-4
    phi = phi.contiguous(memory_format=memory)
    torch.testing.assert_close(
        sign_sums(phi, 1), plain_sums(phi.double(), 1).float(), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("memory", FORMATS)
def test_rounding_does_not_add_up(memory: torch.memory_format) -> None:
    """One float32 sum of 224 x 224 equal responses is wrong by more than a ten-thousandth."""
    phi = torch.full((1, 64, 224, 224), 0.1).contiguous(memory_format=memory)
    expected = plain_sums(phi.double(), 1).float()
    torch.testing.assert_close(sign_sums(phi, 1), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("side", [1, 5, 32])
def test_nan_and_infinity_reach_both_sums_or_their_own(
    memory: torch.memory_format, side: int
) -> None:
    phi = responses(3, 4, side, side)
    phi[0, 1, -1, -1] = torch.nan
    phi[1, 2, 0, 0] = torch.inf
    phi[2, 3, 0, -1] = -torch.inf
    sums = sign_sums(phi.contiguous(memory_format=memory), 1)
    assert torch.isnan(sums[0, :, 1]).all()
    assert sums[1, 0, 2] == sums[2, 1, 3] == torch.inf
    assert torch.isfinite(sums).sum() == sums.numel() - 4


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("samples", [1, 5])
def test_bits_depend_on_neither_threads_nor_batch(
    memory: torch.memory_format, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    phi = responses(samples, 600, 30, 30).contiguous(memory_format=memory)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = torch.cat([sign_sums(phi[i : i + 1], 1) for i in range(samples)])
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        # So that sums that nobody fills are not those of the last round.
        monkeypatch.setattr(np, "empty", lambda shape, dtype: np.full(shape, np.nan, dtype))
        assert torch.equal(sign_sums(phi, 1), alone)


@pytest.mark.skipif(team() is None, reason="torch's OpenMP library is not known here")
@pytest.mark.parametrize("memory", FORMATS)
def test_large_responses_are_shared_by_torchs_threads(
    memory: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []

    class Counted(Team):
        def run(self, region: int, data: int) -> None:
            runs.append(region)
            super().run(region, data)

    counted = Counted()
    monkeypatch.setattr(module, "team", lambda: counted)
    large, small = (responses(2, 64, s, s).contiguous(memory_format=memory) for s in (30, 3))
    for threads, expected in ((1, 0), (2, 1)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for phi in (large, small):
            exact = plain_sums(phi.double(), 1).float()
            torch.testing.assert_close(sign_sums(phi, 1), exact, rtol=1e-6, atol=0)
        assert len(runs) == expected


def test_without_numba_torch_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    phi = responses(2, 3, 9, 9)
    compiled = sign_sums(phi, 1)
    monkeypatch.setattr(module, "compiled_sign_kernels", lambda: None)
    torch.testing.assert_close(sign_sums(phi, 1), compiled, rtol=1e-5, atol=0)
    assert torch.equal(sign_sums(phi, 1), plain_sums(phi, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_summed_by_torch(dtype: torch.dtype) -> None:
    phi = responses(2, 3, 9, 9).to(dtype)
    torch.testing.assert_close(
        sign_sums(phi, 1), plain_sums(phi.double(), 1).float(), rtol=1e-5, atol=0
    )
