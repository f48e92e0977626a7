"""Losses that attacks climb, of each row: scores (N, M), labels (N,), targets (N,) -> (N,).

A target of -1 stands for an untargeted attack: away from the label. The margin needs no
probabilities, so it suits scores of any kind; cross-entropy suits logits alone, and saturates where
they are large. DLR divides the margin by a difference of the row's own scores (Croce & Hein 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from regroup.attacks.network import cross_entropy

if TYPE_CHECKING:
    from collections.abc import Callable

Loss = Literal["margin", "cross-entropy", "dlr"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


def loss_function(name: Loss) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the loss called `name`."""
    return {"margin": margin_loss, "cross-entropy": likelihood_loss, "dlr": dlr_loss}[name]


def margin_loss(scores: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return how far the target, or the strongest other class, is above the label."""
    aim = torch.where(targets >= 0, _at(scores, targets.clamp(min=0)), _others(scores, labels))
    return aim - _at(scores, labels)


def likelihood_loss(scores: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the label's cross-entropy, or minus the target's."""
    away, towards = cross_entropy(scores, labels), -cross_entropy(scores, targets.clamp(min=0))
    return torch.where(targets >= 0, towards, away)


def dlr_loss(scores: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the margin over a difference of logits that no scaling or shift of them changes.

    That difference is between the first and the third, for a target the first and the mean of the
    third and fourth; of as many classes as there are.
    """
    first = scores.topk(min(4, scores.shape[1]), dim=1).values
    third, fourth = first[:, min(2, first.shape[1] - 1)], first[:, -1]
    low = torch.where(targets >= 0, (third + fourth) / 2, third)
    return margin_loss(scores, labels, targets) / (first[:, 0] - low + 1e-12)


def _at(scores: Tensor, classes: Tensor) -> Tensor:
    return scores.gather(1, classes[:, None])[:, 0]


def _others(scores: Tensor, labels: Tensor) -> Tensor:
    return scores.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
