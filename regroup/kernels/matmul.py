"""The matrix product of scoring: constants minus log PMFs times mixtures (eqs. 2, 3).

On a CPU torch multiplies float32 matrices by MKL, which on processors other than Intel's reaches
half of what the core can do; oneDNN, which computes the network's convolutions, reaches all of it
(docs/performance.md). Small products stay with MKL: oneDNN takes 25 us to start.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

# From this many multiplications on, oneDNN is at least as fast for any shape.
_WORTH = 2**22


class DivergenceProduct:
    """Computes `constants` (M,) minus x times `mixtures` (M, C) transposed, for x (N, C).

    Which library multiplies depends on the shape alone, so that the bits do not depend on what was
    computed before. oneDNN has a copy of the mixtures, made when it is first needed.
    """

    def __init__(self, mixtures: Tensor, constants: Tensor) -> None:
        self._mixtures, self._constants = mixtures, constants
        plain = mixtures.device.type == "cpu" and mixtures.dtype == torch.float32
        self._onednn = plain and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product, (N, M)."""
        if self._onednn and len(x) * self._mixtures.numel() >= _WORTH:
            with torch.no_grad():
                found = functional.linear(x.contiguous().to_mkldnn(), *self._packed)
            return found.to_dense()
        return torch.addmm(self._constants, x, self._mixtures.T, alpha=-1)

    @cached_property
    def _packed(self) -> tuple[Tensor, Tensor]:
        return (-self._mixtures).to_mkldnn(), self._constants.to_mkldnn()
