"""Voting rules besides the paper's Borda count: other ways from the same rankings to a winner.

Every rule sees what Borda sees, the ranks that the voters of the last k taps give all M classes (1
is best), and gives every class a whole number; the largest wins, ties as in `regroup.scoring`:

- plurality: how many voters rank the class first.
- copeland: for every other class 2 points if more voters rank this one before it than after it, 1
  if equally many do (Copeland 1951; a class that beats all others, Condorcet's winner, comes
  first).
- median-rank: minus twice the median of the class's ranks (for an even number of voters, the mean
  of the middle two); after Bucklin and Balinski-Laraki, robust to a minority of fooled voters.
- weighted-borda: Borda counts times the voter's weight, the number of clean samples that its tap
  alone (both signs) classifies correctly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from regroup.bank import SIGN_CHOICES, check_k_range
from regroup.errors import ConfigurationError
from regroup.kernels.copeland import Majorities, rank_dtype
from regroup.scoring import Scorer, VoteSums, voting_signs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from regroup.bank import Bank
    from regroup.scoring import Accumulator, TieBreak

Rule = Literal["borda", "plurality", "copeland", "median-rank", "weighted-borda"]
RULES: tuple[Rule, ...] = get_args(Rule)
# Numbers that one piece of the samples may occupy: 128 MiB of int64.
_PIECE = 2**24


class Election(ABC):
    """The voters of some taps, added one tap after another, over N samples and M classes."""

    @classmethod
    def size(cls, taps: int, classes: int) -> int:  # noqa: ARG003
        """Return how many numbers one sample occupies in memory."""
        return 3 * classes

    @abstractmethod
    def add(self, tap: int, ranks: Tensor) -> None:
        """Add a tap's voters: `ranks` (2, N, M) int64 from 1, sign 0 positive."""

    @abstractmethod
    def scores(self) -> Tensor:
        """Return the score of every class, (3, N, M) int64: both signs, positive, negative."""


class _Sum(Election):
    """Points that add up over voters."""

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = weights
        self._sums: Tensor | None = None

    @abstractmethod
    def _points(self, ranks: Tensor) -> Tensor: ...

    def add(self, tap: int, ranks: Tensor) -> None:
        """Add the points of both voters, times the tap's weight."""
        points = self._weights[tap] * self._points(ranks)
        sums = torch.stack((points[0] + points[1], points[0], points[1]))
        self._sums = sums if self._sums is None else self._sums + sums

    def scores(self) -> Tensor:
        """The sums so far, (3, N, M) int64."""
        assert self._sums is not None
        return self._sums


class Plurality(_Sum):
    """Count of first choices."""

    def _points(self, ranks: Tensor) -> Tensor:
        return (ranks == 1).to(torch.int64)


class Borda(_Sum):
    """Sum of M - rank (eqs. 6, 7), each tap times its weight."""

    def _points(self, ranks: Tensor) -> Tensor:
        return ranks.shape[-1] - ranks


class Copeland(Election):
    """Count of pairwise majorities."""

    def __init__(self, weights: Sequence[int]) -> None:
        del weights
        self._first: Tensor | None = None
        self._majorities: Majorities | None = None

    @classmethod
    def size(cls, taps: int, classes: int) -> int:  # noqa: ARG003
        """Count all pairs of classes: few samples at once, so that a cache holds most of them."""
        return 2 * classes**2

    def add(self, tap: int, ranks: Tensor) -> None:  # noqa: ARG002
        """Add each pair's voters for one class before the other, minus those against."""
        if self._first is None:
            self._first = ranks
            return
        if self._majorities is None:
            self._majorities = Majorities(self._first)
        self._majorities.add(ranks)

    def scores(self) -> Tensor:
        """Return 2 points per majority, 1 per tie; a class ties with itself: 1 point for all."""
        assert self._first is not None
        if self._majorities is None:
            return _of_two_voters(*self._first.to(torch.int64))
        return self._majorities.points()


def _of_two_voters(positive: Tensor, negative: Tensor) -> Tensor:
    """Return Copeland's points (3, N, M) int64 of one voter per sign, without looking at pairs.

    The majority of two voters is the mean of their +1 and -1, so the points add up like ranks.
    """
    classes = positive.shape[-1]
    both = 2 * classes + 1 - positive - negative
    return torch.stack((both, 2 * (classes - positive) + 1, 2 * (classes - negative) + 1))


class MedianRank(Election):
    """Median of the ranks."""

    def __init__(self, weights: Sequence[int]) -> None:
        del weights
        self._positive: list[Tensor] = []
        self._negative: list[Tensor] = []
        self._both: list[Tensor] = []

    @classmethod
    def size(cls, taps: int, classes: int) -> int:
        """Count the ranks of all voters, sorted, once for each sign and once for both."""
        return 6 * taps * classes

    def add(self, tap: int, ranks: Tensor) -> None:  # noqa: ARG002
        """Insert the ranks into the sorted ones."""
        positive, negative = ranks.to(rank_dtype(ranks.shape[-1]))
        for ordered, added in (
            (self._positive, positive),
            (self._negative, negative),
            (self._both, positive),
            (self._both, negative),
        ):
            _insert(ordered, added)

    def scores(self) -> Tensor:
        """Return minus the sum of the two middle ranks, which coincide for an odd number."""
        groups = (self._both, self._positive, self._negative)
        return torch.stack([-_middles(group) for group in groups])


def _insert(ordered: list[Tensor], ranks: Tensor) -> None:
    """Insert `ranks` (N, M) into those of other voters, sorted class by class, ascending.

    At each position the smaller value stays and the larger one moves on: V minima and maxima of
    whole numbers per voter, far cheaper than sorting again.
    """
    moving, spare = ranks.clone(), torch.empty_like(ranks)
    for place, kept in enumerate(ordered):
        torch.minimum(kept, moving, out=spare)
        torch.maximum(kept, moving, out=moving)
        ordered[place], spare = spare, kept
    ordered.append(moving)


def _middles(ordered: list[Tensor]) -> Tensor:
    """Return the sum of the two middle ones of V sorted (N, M), int64."""
    voters = len(ordered)
    return ordered[(voters - 1) // 2].to(torch.int64) + ordered[voters // 2]


ELECTIONS: dict[Rule, type[Plurality | Borda | Copeland | MedianRank]] = {
    "plurality": Plurality,
    "copeland": Copeland,
    "median-rank": MedianRank,
    "weighted-borda": Borda,
}


class RuleScorer(Scorer):
    """A `regroup.scoring.Scorer` for another rule of `RULES` than Borda's.

    Args:
        bank: as for `Scorer`.
        rule: the voting rule.
        weights: (T,) whole numbers, only for weighted-borda: how many clean samples each tap of the
            bank classifies correctly.
        delta: as for `Scorer`.
        tie_break: as for `Scorer`.
        device: as for `Scorer`.
        dtype: as for `Scorer`.

    Raises:
        ConfigurationError: as `Scorer`; an unknown rule; weights that are missing, negative, all
            zero, or given to a rule that has none.
    """

    def __init__(
        self,
        bank: Bank,
        rule: Rule,
        weights: Sequence[int] | None = None,
        *,
        delta: float | None = None,
        tie_break: TieBreak = "class",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        given = {} if delta is None else {"delta": delta}
        super().__init__(bank, tie_break=tie_break, device=device, dtype=dtype, **given)
        if rule not in ELECTIONS:
            known = ", ".join(ELECTIONS)
            raise ConfigurationError(
                f"unknown voting rule {rule!r}: choose from {known}; Scorer computes Borda"
            )
        _check_weights(rule, weights, len(bank.taps))
        self._election, self._weights = ELECTIONS[rule], weights or [1] * len(bank.taps)

    def class_scores(self, accumulators: Sequence[Accumulator], k: int, signs: str) -> Tensor:
        """Return the rule's whole numbers, (N, M); see `Scorer`."""
        taps = len(accumulators)
        check_k_range(k, taps)
        voting_signs(signs)
        self._check_ties()
        self._check_taps(accumulators)
        election = self._election(self._weights)
        for tap in reversed(range(taps - k, taps)):
            found = torch.stack(self._tap_divergences(tap, accumulators[tap], (0, 1)))
            election.add(tap, self._ranks(found))
        return election.scores()[SIGN_CHOICES.index(signs)]

    def _rows_at_once(self, taps: int) -> int:
        """Return as many samples as the rule has memory for."""
        return max(1, _PIECE // self._election.size(taps, self._num_classes))

    def _piece(self, accumulators: Sequence[Accumulator], truth: Tensor) -> NDArray[np.int32]:
        """Return (4, n, 3, T) for a few samples."""
        taps = len(accumulators)
        decided = np.empty((4, len(truth), 3, taps), np.int32)
        total, divergence = self._election(self._weights), torch.zeros((), dtype=self._dtype)
        for tap in reversed(range(taps)):
            found = torch.stack(self._tap_divergences(tap, accumulators[tap], (0, 1)))
            ranks = self._ranks(found)
            alone = self._election(self._weights)
            own = torch.stack((found[0] + found[1], found[0], found[1]))
            divergence = divergence.to(own.device) + own
            for election in (total, alone):
                election.add(tap, ranks)
            decided[:2, :, :, taps - 1 - tap] = self._decide(
                VoteSums(total.scores(), divergence), truth
            )
            decided[2:, :, :, tap] = self._decide(VoteSums(alone.scores(), own), truth)
        return decided

    def _ranks(self, divergences: Tensor) -> Tensor:
        """Return ranks (2, n, M) int64 from 1 by divergences (2, n, M)."""
        points = torch.stack([self._points(each) for each in divergences])
        return self._num_classes - points.to(torch.int64)


def _check_weights(rule: str, weights: Sequence[int] | None, taps: int) -> None:
    if (weights is None) == (rule == "weighted-borda"):
        state = "needs weights, one per tap" if weights is None else "takes no weights"
        raise ConfigurationError(f"voting rule {rule} {state}")
    if weights is not None and (len(weights) != taps or min(weights) < 0 or max(weights) == 0):
        raise ConfigurationError(
            f"weights of voting rule {rule} must be one for each of the bank's {taps} taps, whole "
            "numbers of at least 0 and not all 0"
        )
