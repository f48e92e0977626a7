"""REGroup's vote with gradients: the surrogates that an attacker who knows it follows.

Ranks and counts are piecewise constant. What they are made of, the divergences, is smooth. A
voter's divergences are divided by its own scale, since a count weighs all voters alike: a tap with
dead channels has divergences of -log(delta) = 46 nats each, and would drown every other voter.

With s_c = -D_c / sigma of one voter, class c against the classes j:

- `standardised`: s_c, summed over the voters.
- `soft-borda`: sum over j != c of sigmoid((s_c - s_j) / tau). As tau goes to 0 it becomes the
  number of classes that the voter ranks behind c, which is Borda's count M - rank (eq. 6).
- `straight-through`: Borda's counts, with the derivative of `soft-borda`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from regroup.bank import DELTA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from regroup.bank import Bank

# In units of a voter's scale. Between 0.02 and 2 nothing changes; at 0.001 most gradients vanish.
TAU = 0.25
# Beyond as many classes only those that can win are compared with all others.
_CONTENDERS = 32


class SmoothDivergences(nn.Module):
    """KL(C_y || pmf(x)) of every voter and class (eq. 3), differentiable in the accumulators.

    Args:
        bank: the mixtures of the taps that vote.
        signs: indices of the signs that vote.
        delta: added to every accumulator entry.
    """

    def __init__(self, bank: Bank, signs: tuple[int, ...], delta: float = DELTA) -> None:
        super().__init__()
        self._signs, self._delta = signs, delta
        for tap, mixtures in enumerate(bank.mixtures):
            for sign in signs:
                self._keep(f"{tap}_{sign}", mixtures[sign])

    def _keep(self, voter: str, mixtures: NDArray[np.float64]) -> None:
        """Keep one voter's terms; logarithms relative to the mean mixture, as `Scorer` does."""
        middle = _logs(mixtures.mean(axis=0))
        constants = (mixtures * (_logs(mixtures) - middle)).sum(axis=1)
        for name, values in (("mixtures", mixtures), ("middle", middle), ("constants", constants)):
            self.register_buffer(
                f"{name}_{voter}", torch.tensor(values, dtype=torch.float32), persistent=False
            )

    def forward(self, accumulators: Sequence[Tensor]) -> Tensor:
        """Return divergences (N, V, M), V voters tap by tap, of one (N, 2, C) per tap."""
        return torch.stack(
            [
                self._voter(f"{tap}_{sign}", accumulator[:, sign])
                for tap, accumulator in enumerate(accumulators)
                for sign in self._signs
            ],
            dim=1,
        )

    def _voter(self, voter: str, accumulator: Tensor) -> Tensor:
        shifted = accumulator.float() + self._delta
        log_pmf = shifted.log() - shifted.sum(-1, keepdim=True).log()
        crossed = (log_pmf - self.get_buffer(f"middle_{voter}")) @ self.get_buffer(
            f"mixtures_{voter}"
        ).T
        return self.get_buffer(f"constants_{voter}") - crossed


def _logs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return logarithms, 0 for zero entries: they are multiplied by 0."""
    return np.log(values, out=np.zeros_like(values), where=values > 0)


def standardised(scores: Tensor) -> Tensor:
    """Sum scores (N, V, M) over the voters: (N, M)."""
    return scores.sum(dim=1)


def soft_borda(scores: Tensor, tau: float = TAU) -> Tensor:
    """Return smooth Borda sums (N, M) of scores (N, V, M).

    Of more than 32 classes only the 32 that the standardised sum puts first are compared with all
    others, with a gradient: a margin concerns no more, and all pairs of 1000 classes would be 10^6
    per voter. The others have their plain counts.
    """
    classes = scores.shape[-1]
    if classes <= _CONTENDERS:
        return _soft_counts(scores, scores, tau)
    counts = hard_borda(scores)
    places = standardised(scores.detach()).topk(_CONTENDERS, dim=1).indices
    chosen = scores.gather(2, places[:, None].expand(-1, scores.shape[1], -1))
    return counts.scatter(1, places, _soft_counts(chosen, scores, tau))


def _soft_counts(chosen: Tensor, scores: Tensor, tau: float) -> Tensor:
    """Return (N, R) of R classes' scores (N, V, R) against all, (N, V, M), a voter at a time.

    A class beside itself would count 1/2.
    """
    counts = chosen.new_zeros(chosen.shape[0], chosen.shape[2])
    for one, all_classes in zip(chosen.unbind(1), scores.unbind(1), strict=True):
        won = torch.sigmoid((one[:, :, None] - all_classes[:, None]) / tau)
        counts = counts + won.sum(-1) - 0.5
    return counts


def hard_borda(scores: Tensor) -> Tensor:
    """Return Borda sums (N, M) float32 of scores (N, V, M); a voter's ties go by class."""
    order = scores.detach().argsort(dim=-1, descending=True, stable=True)
    classes = scores.shape[-1]
    points = torch.arange(classes - 1, -1, -1, device=scores.device, dtype=torch.float32)
    counts = torch.empty_like(order, dtype=torch.float32)
    return counts.scatter_(-1, order, points.expand(order.shape)).sum(dim=1)


def straight_through(scores: Tensor, tau: float = TAU) -> Tensor:
    """Return Borda sums (N, M) of scores (N, V, M) with the derivative of `soft_borda`."""
    soft = soft_borda(scores, tau)
    return hard_borda(scores) + (soft - soft.detach())
