"""Voting rules over divergences themselves: how far apart a voter sees two classes counts.

Every voter's divergences are first divided by its scale sigma (`regroup.scales`), since raw ones
are of different sizes: s_c = -D_c / sigma.

- standardised-divergence: the sum of s_c over the voters.
- crossmax: from each voter's s its largest over the classes is subtracted, then from each class's
  its largest over the voters; the class's third-largest over the voters counts (Fort &
  Lakshminarayanan 2024; of fewer than three voters, the smallest). A class that wins three voters
  has exactly 0, as any other such class, so ties go by the plain sum of s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from regroup.bank import DELTA, SIGN_CHOICES, check_k_range
from regroup.errors import ConfigurationError
from regroup.scoring import Scorer, VoteSums, decide_by_divergence, voting_signs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from regroup.bank import Bank
    from regroup.scoring import Accumulator

DivergenceRule = Literal["standardised-divergence", "crossmax"]
DIVERGENCE_RULES: tuple[DivergenceRule, ...] = get_args(DivergenceRule)
_CROSSMAX_PLACE = 3


def plain_sum(scores: Tensor) -> Tensor:
    """Sum scores (..., V, M) over the voters."""
    return scores.sum(dim=-2)


def crossmax(scores: Tensor) -> Tensor:
    """Return CrossMax (..., M) of scores (..., V, M)."""
    by_voter = scores - scores.amax(dim=-1, keepdim=True)
    by_class = by_voter - by_voter.amax(dim=-2, keepdim=True)
    place = min(_CROSSMAX_PLACE, scores.shape[-2])
    return by_class.topk(place, dim=-2).values[..., -1, :]


COUNTS: dict[DivergenceRule, Callable[[Tensor], Tensor]] = {
    "standardised-divergence": plain_sum,
    "crossmax": crossmax,
}


class DivergenceScorer(Scorer):
    """A `regroup.scoring.Scorer` for a rule of `DIVERGENCE_RULES`.

    Args:
        bank: as for `Scorer`.
        rule: the voting rule.
        scales: (T, 2) float64, sigma of every voter of the bank.
        delta: as for `Scorer`.
        device: as for `Scorer`.
        dtype: as for `Scorer`.

    Raises:
        ConfigurationError: as `Scorer`; an unknown rule; scales of another bank, or not positive.
    """

    def __init__(
        self,
        bank: Bank,
        rule: DivergenceRule,
        scales: NDArray[np.float64],
        *,
        delta: float = DELTA,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(bank, tie_break="divergence", delta=delta, device=device, dtype=dtype)
        if rule not in COUNTS:
            known = ", ".join(COUNTS)
            raise ConfigurationError(f"unknown voting rule {rule!r}: choose from {known}")
        check_scales(scales, bank)
        self._count = COUNTS[rule]
        self._scales = torch.tensor(scales, device=self._device, dtype=dtype)

    def class_scores(self, accumulators: Sequence[Accumulator], k: int, signs: str) -> Tensor:
        """Return what decides between the classes, (N, M), ties settled; see `Scorer`."""
        taps = len(accumulators)
        check_k_range(k, taps)
        chosen = voting_signs(signs)
        self._check_taps(accumulators)
        voters = [
            scores[sign]
            for tap in range(taps - k, taps)
            for scores in [self._scores(tap, accumulators[tap])]
            for sign in chosen
        ]
        found = torch.stack(voters, dim=-2)
        return _settled(self._count(found), plain_sum(found))

    def _scores(self, tap: int, accumulator: Accumulator) -> Tensor:
        """Return s (2, N, M) of one tap."""
        divergences = torch.stack(self._tap_divergences(tap, accumulator, (0, 1)))
        return -divergences / self._scales[tap].view(2, 1, 1)

    def _piece(self, accumulators: Sequence[Accumulator], truth: Tensor) -> NDArray[np.int32]:
        """Return (4, n, 3, T) for a few samples."""
        taps = len(accumulators)
        decided = np.empty((4, len(truth), len(SIGN_CHOICES), taps), np.int32)
        seen: list[Tensor] = []
        for tap in reversed(range(taps)):
            seen.append(self._scores(tap, accumulators[tap]))
            decided[:2, :, :, taps - 1 - tap] = self._counted(seen, truth)
            decided[2:, :, :, tap] = self._counted(seen[-1:], truth)
        return decided

    def _counted(self, taps: list[Tensor], truth: Tensor) -> NDArray[np.int32]:
        """Return predictions and true ranks (2, n, 3) by the voters of `taps`, (2, n, M) each."""
        signs = torch.stack(taps, dim=-2)  # (2, n, T, M)
        choices = (torch.cat((signs[0], signs[1]), dim=-2), signs[0], signs[1])
        counts = torch.stack([self._count(each) for each in choices])
        sums = torch.stack([plain_sum(each) for each in choices])
        decided = torch.stack(decide_by_divergence(VoteSums(counts, -sums), truth))
        return decided.transpose(1, 2).to("cpu", torch.int32).numpy()


def check_scales(scales: NDArray[np.float64], bank: Bank) -> None:
    """Raise ConfigurationError unless `scales` can be those of `bank`'s voters."""
    if scales.shape != (len(bank.taps), 2):
        raise ConfigurationError(
            f"scales of shape {scales.shape} for a bank of {len(bank.taps)} taps: give those of "
            "this bank"
        )
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise ConfigurationError("scales of voters must be positive: measure them again")


def _settled(counts: Tensor, sums: Tensor) -> Tensor:
    """Return counts (N, M) whose ties at the top are settled by `sums` (N, M).

    Of those that tie for the first place the one of the largest sum is lifted by 1, the others by
    less than 1/2, the more the nearer their sums are to it.
    """
    top = counts == counts.amax(dim=1, keepdim=True)
    tied = top & (top.sum(dim=1, keepdim=True) > 1)
    lead = sums.masked_fill(~tied, -torch.inf)
    first = torch.zeros_like(counts).scatter_(1, lead.argmax(dim=1, keepdim=True), 1.0)
    nearness = torch.exp(lead - lead.amax(dim=1, keepdim=True)) / 2
    return counts + torch.where(tied, torch.maximum(first, nearness), 0)
