"""APGD's step sizes (Croce & Hein 2020, section 3 and algorithm 1): halved when progress stalls."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

_FIRST, _SHRINK, _SHORTEST = 0.22, 0.03, 0.06
# Of the steps between two checkpoints, the share that must have raised the loss.
_RISES = 0.75


def checkpoints(steps: int) -> tuple[int, ...]:
    """Return the steps after which progress is judged: intervals of 22 % of all, then shorter."""
    shares, interval = [0.0], _FIRST
    while shares[-1] + interval < 1:
        shares.append(shares[-1] + interval)
        interval = max(interval - _SHRINK, _SHORTEST)
    # The sums of shares have rounding errors: 0.22 + 0.19 is above 0.41.
    return tuple(dict.fromkeys(math.ceil(round(share * steps, 6)) for share in shares[1:]))


@dataclass
class Climb:
    """The state of the rows (N,) of one run.

    Attributes:
        x: (N, C, H, W), the iterate.
        before: (N, C, H, W), the one before it.
        gradient: (N, C, H, W), at `x`.
        best: (N, C, H, W), the iterate of the largest loss so far.
        best_gradient: (N, C, H, W), there.
        best_loss: (N,).
        loss: (N,), at `x`.
        size: (N,), of the next step.
        rises: (N,) int64, steps since the last checkpoint that raised the loss.
        halved: (N,) bool, whether the last checkpoint halved the size.
        best_then: (N,), `best_loss` at the last checkpoint.
    """

    x: Tensor
    before: Tensor
    gradient: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    loss: Tensor
    size: Tensor
    rises: Tensor
    halved: Tensor
    best_then: Tensor

    @classmethod
    def begin(cls, x: Tensor, gradient: Tensor, loss: Tensor, size: float) -> Self:
        """Begin at `x` with its gradient and loss."""
        never = torch.zeros_like(loss, dtype=torch.bool)
        return cls(
            x=x,
            before=x.clone(),
            gradient=gradient,
            best=x.clone(),
            best_gradient=gradient.clone(),
            best_loss=loss.clone(),
            loss=loss,
            size=torch.full_like(loss, size),
            rises=torch.zeros_like(loss, dtype=torch.int64),
            halved=~never,  # "not reduced at the last checkpoint" cannot hold at the first
            best_then=loss.clone(),
        )

    def rows(self, kept: Tensor) -> Climb:
        """Return the state of the rows `kept`, indices or flags."""
        return Climb(*(getattr(self, field.name)[kept] for field in fields(self)))

    def arrive(self, x: Tensor, gradient: Tensor, loss: Tensor) -> None:
        """Take a step to `x`, with its gradient and loss."""
        self.rises += loss > self.loss
        better = loss > self.best_loss
        column = better.view(-1, 1, 1, 1)
        self.best = torch.where(column, x, self.best)
        self.best_gradient = torch.where(column, gradient, self.best_gradient)
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.before, self.x, self.gradient, self.loss = self.x, x, gradient, loss

    def judge(self, interval: int) -> None:
        """Halve the size, and go back to the best iterate, where `interval` steps did too little.

        That is where less than 75 % of them raised the loss, or where neither the size nor the best
        loss changed since the last checkpoint.
        """
        stalled = self.rises < _RISES * interval
        stuck = ~self.halved & (self.best_then >= self.best_loss)
        halve = stalled | stuck
        column = halve.view(-1, 1, 1, 1)
        self.size = torch.where(halve, self.size / 2, self.size)
        self.x = torch.where(column, self.best, self.x)
        self.gradient = torch.where(column, self.best_gradient, self.gradient)
        self.loss = torch.where(halve, self.best_loss, self.loss)
        self.halved, self.best_then = halve, self.best_loss.clone()
        self.rises = torch.zeros_like(self.rises)
