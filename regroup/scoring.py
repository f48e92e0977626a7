"""Scoring: divergences as matrix products, ranks, Borda sums for every k and sign choice.

Paper arXiv 2006.10679, eqs. 2, 3, 6 and 7. KL(C_y || pmf(x)) is const_y - <C_y, log pmf(x)>, so a
voter costs one matrix product and one argsort per batch; every k and every sign choice then follow
from running sums over the taps, the last one first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from regroup.bank import DELTA, SIGN_CHOICES, check_k_range
from regroup.errors import ConfigurationError, RegroupError
from regroup.kernels.borda import BordaSums, borda_kernels
from regroup.kernels.matmul import DivergenceProduct
from regroup.kernels.ranking import ascending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from regroup.bank import Bank

    Accumulator = Tensor | NDArray[np.floating]

TieBreak = Literal["class", "divergence"]
# Classes times samples that are scored at once on a CPU.
_PIECE = 2**18
VOTING_SIGNS = {"both": (0, 1), "positive": (0,), "negative": (1,)}


@dataclass(frozen=True, eq=False)
class Votes:
    """Outcome of scoring N samples; int32, the sign choices S = 3 in `SIGN_CHOICES` order.

    True ranks start at 1 and follow the order whose first class is the prediction.

    Attributes:
        prediction: (N, 3, T), index k - 1 where the last k taps vote.
        true_rank: (N, 3, T), likewise.
        tap_prediction: (N, 3, T), each tap alone, in execution order.
        tap_true_rank: (N, 3, T), likewise.
    """

    prediction: NDArray[np.int32]
    true_rank: NDArray[np.int32]
    tap_prediction: NDArray[np.int32]
    tap_true_rank: NDArray[np.int32]


class _Voter:
    """One tap and sign: its mixtures (M, C) ready for the product with log PMFs.

    Classes with identical mixtures share one column: BLAS may round equal columns differently, and
    a tie has to stay one.
    """

    def __init__(
        self, mixtures: NDArray[np.float64], device: torch.device, dtype: torch.dtype
    ) -> None:
        mixtures = mixtures + 0.0  # -0.0 and 0.0 are the same entry
        column = {row.tobytes(): 0 for row in mixtures}
        column.update({row: i for i, row in enumerate(column)})
        columns = [column[row.tobytes()] for row in mixtures]
        rows = mixtures[np.unique(columns, return_index=True)[1]]
        # A mixture sums to 1, so log PMFs and constants may be shifted by the same values. With the
        # logarithms of the mean mixture as the shift both are small; else their difference, the
        # divergence, would lose most of float32's digits.
        middle = _logs(rows.mean(axis=0))
        constants = (rows * (_logs(rows) - middle)).sum(axis=1)
        self._product = DivergenceProduct(
            torch.tensor(rows, dtype=dtype, device=device),
            torch.tensor(constants, dtype=dtype, device=device),
        )
        self._middle = torch.tensor(middle, dtype=dtype, device=device)
        shared = len(rows) < len(mixtures)
        self._columns = torch.tensor(columns, device=device) if shared else None

    def divergences(self, log_pmf: Tensor) -> Tensor:
        """Return the KL of every class, (N, M), for log PMFs (N, C)."""
        found = self._product(log_pmf - self._middle)
        return found if self._columns is None else found[:, self._columns]


def _logs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return logarithms, 0 for zero entries: they are multiplied by 0."""
    return np.log(values, out=np.zeros_like(values), where=values > 0)


@dataclass(frozen=True, eq=False)
class VoteSums:
    """Running sums over voters, for the three sign choices.

    Attributes:
        borda: Borda sums (3, N, M) int.
        divergence: summed divergences (3, N, M); a scalar 0 where ties go by class, which ignores
            them.
    """

    borda: Tensor
    divergence: Tensor

    def __add__(self, other: VoteSums) -> VoteSums:
        return VoteSums(self.borda + other.borda, self.divergence + other.divergence)


class Scorer:
    """Scores accumulators against a bank on `device`, computing in `dtype`.

    Keeps the mixtures in that type alone, and on a CPU a second copy for `regroup.kernels.matmul`.

    Every method takes `accumulators`, one (N, 2, C) per tap of the bank in execution order, and
    raises ConfigurationError if they do not fit the bank's taps, RegroupError if they are NaN,
    infinite or negative.

    Args:
        bank: the mixtures.
        delta: added to every accumulator entry.
        tie_break: between classes of equal Borda sums, "class" lets the lower index win,
            "divergence" the smaller divergence summed over the same voters (then the lower index).
        device: where the scoring runs.
        dtype: of the computation.

    Raises:
        ConfigurationError: a delta that `dtype` cannot hold, or an unknown tie break.
    """

    def __init__(
        self,
        bank: Bank,
        *,
        delta: float = DELTA,
        tie_break: TieBreak = "class",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not torch.tensor(delta, dtype=dtype) > 0:
            raise ConfigurationError(f"delta = {delta}: it must be above 0 in {dtype}")
        if tie_break not in get_args(TieBreak):
            raise ConfigurationError(f"unknown tie break {tie_break!r}: choose class or divergence")
        self._taps, self._num_classes = bank.taps, bank.num_classes
        self._channels = [mixtures.shape[2] for mixtures in bank.mixtures]
        self._delta, self._tie_break = delta, tie_break
        self._device, self._dtype = torch.device(device), dtype
        self._voters = [
            [_Voter(mixtures[sign], self._device, dtype) for sign in (0, 1)]
            for mixtures in bank.mixtures
        ]
        classes = bank.num_classes
        fits = 2 * len(bank.taps) * classes**2 < 2**31  # `_decide_by_class` multiplies by M
        self._integer = torch.int32 if fits else torch.int64

    def divergences(self, accumulators: Sequence[Accumulator]) -> tuple[Tensor, ...]:
        """Return KL(C_y || pmf(x)) of every voter and class: one (N, 2, M) per tap."""
        self._check_taps(accumulators)
        return tuple(
            torch.stack(self._tap_divergences(tap, accumulator, (0, 1)), dim=1)
            for tap, accumulator in enumerate(accumulators)
        )

    def borda_sums(self, accumulators: Sequence[Accumulator], k: int, signs: str) -> Tensor:
        """Return Borda sums (N, M) int of the last `k` taps (eq. 7); `signs` one of `SIGN_CHOICES`.

        Raises:
            ConfigurationError: `k` out of range, or unknown `signs`.
        """
        taps = len(self._taps)
        check_k_range(k, taps)
        chosen = voting_signs(signs)
        self._check_taps(accumulators)
        sums = [
            self._points(divergence)
            for tap in range(taps - k, taps)
            for divergence in self._tap_divergences(tap, accumulators[tap], chosen)
        ]
        return torch.stack(sums).sum(0, dtype=self._integer)

    def class_scores(self, accumulators: Sequence[Accumulator], k: int, signs: str) -> Tensor:
        """Return what decides between the classes, (N, M): the first largest wins.

        Raises:
            ConfigurationError: as `borda_sums`, or ties go by divergence, which counts cannot say.
        """
        self._check_ties()
        return self.borda_sums(accumulators, k, signs)

    def _check_ties(self) -> None:
        if self._tie_break != "class":
            raise ConfigurationError(
                f"scores of classes do not settle ties by {self._tie_break}: use tie_break='class'"
            )

    def votes(
        self, accumulators: Sequence[Accumulator], labels: Tensor | NDArray[np.integer]
    ) -> Votes:
        """Return predictions and true ranks for every k, every sign choice and every tap alone.

        Args:
            accumulators: one (N, 2, C) per tap.
            labels: (N,), the true classes.

        Raises:
            ConfigurationError: labels out of range; leave out failed rows.
        """
        samples = self._check_taps(accumulators)
        truth = self._check_labels(labels, samples)
        decided = np.empty((4, samples, len(SIGN_CHOICES), len(accumulators)), np.int32)
        step = self._rows_at_once(len(accumulators))
        for start in range(0, samples, step):
            piece = slice(start, start + step)
            decided[:, piece] = self._piece([part[piece] for part in accumulators], truth[piece])
        return Votes(*decided)

    def _rows_at_once(self, taps: int) -> int:  # noqa: ARG002 - other rules need more for more taps
        """Return how many samples' sums a CPU's cache holds; a GPU takes all."""
        return max(1, _PIECE // self._num_classes) if self._device.type == "cpu" else 2**31

    @property
    def _compiled(self) -> bool:
        """Whether `regroup.kernels.borda` computes the same faster."""
        plain = self._device.type == "cpu" and self._dtype == torch.float32
        fits = self._tie_break == "class" and self._integer == torch.int32
        return plain and fits and borda_kernels() is not None

    def _piece(self, accumulators: Sequence[Accumulator], truth: Tensor) -> NDArray[np.int32]:
        """Return the contents of `Votes` for a few samples, (4, n, 3, T)."""
        if self._compiled:
            return self._compiled_piece(accumulators, truth)
        taps = len(accumulators)
        decided = np.empty((4, len(truth), len(SIGN_CHOICES), taps), np.int32)
        total: VoteSums | None = None
        for tap in reversed(range(taps)):
            alone = self._vote_sums(tap, accumulators[tap])
            total = alone if total is None else total + alone
            decided[:2, :, :, taps - 1 - tap] = self._decide(total, truth)
            decided[2:, :, :, tap] = self._decide(alone, truth)
        return decided

    def _compiled_piece(
        self, accumulators: Sequence[Accumulator], truth: Tensor
    ) -> NDArray[np.int32]:
        taps = len(accumulators)
        decided = np.empty((4, len(truth), len(SIGN_CHOICES), taps), np.int32)
        sums = BordaSums(truth.numpy(), self._num_classes)
        for tap in reversed(range(taps)):
            found = self._tap_divergences(tap, accumulators[tap], (0, 1))
            total, alone = decided[:2, :, :, taps - 1 - tap], decided[2:, :, :, tap]
            sums.add(found[0].numpy(), found[1].numpy(), total, alone)
        return decided

    def _decide(self, sums: VoteSums, labels: Tensor) -> NDArray[np.int32]:
        """Return predictions and true ranks, (2, N, 3)."""
        decide = _decide_by_class if self._tie_break == "class" else decide_by_divergence
        decided = torch.stack(decide(sums, labels)).transpose(1, 2)
        return decided.to("cpu", torch.int32).numpy()

    def _vote_sums(self, tap: int, accumulator: Accumulator) -> VoteSums:
        divergences = self._tap_divergences(tap, accumulator, (0, 1))
        points = [self._points(divergence) for divergence in divergences]
        borda = torch.stack((points[0] + points[1], *points))
        if self._tie_break == "class":
            return VoteSums(borda, torch.zeros((), dtype=self._dtype, device=self._device))
        return VoteSums(borda, torch.stack((divergences[0] + divergences[1], *divergences)))

    def _points(self, divergence: Tensor) -> Tensor:
        """Return Borda counts M - rank (N, M): ascending divergence, ties by class (eq. 6)."""
        order = ascending(divergence)
        classes = divergence.shape[1]
        counts = torch.arange(classes - 1, -1, -1, device=self._device, dtype=self._integer)
        points = torch.empty_like(order, dtype=self._integer)
        return points.scatter_(1, order, counts.expand_as(order))

    def _tap_divergences(
        self, tap: int, accumulator: Accumulator, signs: tuple[int, ...]
    ) -> list[Tensor]:
        log_pmf = self._log_pmf(tap, accumulator)
        return [self._voters[tap][sign].divergences(log_pmf[:, sign]) for sign in signs]

    def _log_pmf(self, tap: int, accumulator: Accumulator) -> Tensor:
        if isinstance(accumulator, np.ndarray):  # torch warns about read-only arrays
            accumulator = torch.from_numpy(np.require(accumulator, requirements=["C", "W"]))
        values = accumulator.to(self._device, self._dtype)
        if values.numel():
            low, high = torch.aminmax(values)
            if not (low >= 0 and high < torch.inf):
                raise RegroupError(
                    f"accumulators of tap {self._taps[tap]} hold NaN, infinite or negative "
                    "values: the network overflowed or the features are damaged; extract again"
                )
        shifted = values + self._delta
        total = shifted.sum(-1, keepdim=True, dtype=torch.float64)
        return shifted.log_().sub_(total.log().to(self._dtype))

    def _check_taps(self, accumulators: Sequence[Accumulator]) -> int:
        """Check that the accumulators fit the bank; return the number of samples."""
        if len(accumulators) != len(self._taps):
            raise ConfigurationError(
                f"accumulators of {len(accumulators)} taps for a bank of {len(self._taps)}: "
                "give those of the bank's taps, in order"
            )
        samples = int(accumulators[0].shape[0])
        for tap, channels, found in zip(self._taps, self._channels, accumulators, strict=True):
            expected = (samples, 2, channels)
            if tuple(found.shape) != expected:
                raise ConfigurationError(
                    f"accumulators of tap {tap} have shape {tuple(found.shape)}, not {expected} "
                    "as the bank's: they are of another model"
                )
        return samples

    def _check_labels(self, labels: Tensor | NDArray[np.integer], samples: int) -> Tensor:
        truth = torch.as_tensor(labels).to(self._device, torch.int64)
        if truth.shape != (samples,):
            raise ConfigurationError(
                f"labels of shape {tuple(truth.shape)} for {samples} samples: give one per sample"
            )
        wrong = truth[(truth < 0) | (truth >= self._num_classes)]
        if len(wrong):
            raise ConfigurationError(
                f"label {int(wrong[0])}: the bank has classes 0 to {self._num_classes - 1}; "
                "leave failed rows out"
            )
        return truth


def voting_signs(signs: str) -> tuple[int, ...]:
    """Return the indices of the signs that vote.

    Raises:
        ConfigurationError: an unknown choice.
    """
    if signs not in VOTING_SIGNS:
        raise ConfigurationError(f"unknown signs {signs!r}: choose {', '.join(SIGN_CHOICES)}")
    return VOTING_SIGNS[signs]


def _decide_by_class(sums: VoteSums, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return predictions and true ranks, each (3, N): largest Borda sum, ties by class index."""
    classes = sums.borda.shape[-1]
    index = torch.arange(classes, device=labels.device, dtype=sums.borda.dtype)
    key = sums.borda * classes + (classes - 1 - index)  # no two classes share a key
    prediction = classes - 1 - key.amax(-1) % classes
    return prediction, 1 + (key > _of_label(key, labels)).sum(-1)


def decide_by_divergence(sums: VoteSums, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return predictions and true ranks, each (3, N): ties by smaller divergence, then by class."""
    borda, divergence = sums.borda, sums.divergence
    best = borda == borda.amax(-1, keepdim=True)
    prediction = divergence.masked_fill(~best, torch.inf).argmin(-1)  # the first of equals
    true_borda, true_divergence = _of_label(borda, labels), _of_label(divergence, labels)
    before = torch.arange(borda.shape[-1], device=labels.device) < labels[:, None]
    closer = (divergence < true_divergence) | ((divergence == true_divergence) & before)
    ahead = (borda > true_borda) | ((borda == true_borda) & closer)
    return prediction, 1 + ahead.sum(-1)


def _of_label(values: Tensor, labels: Tensor) -> Tensor:
    """Return the values (3, N, 1) of the true classes."""
    return values.gather(-1, labels.expand(values.shape[0], -1).unsqueeze(-1))
