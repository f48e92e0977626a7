"""The two views of a defended network: what decides, and what an attacker differentiates.

A vote, a rounding or a label has no gradient to follow. That says nothing about how robust the
network is: an attacker who knows the defense follows a smooth stand-in, the surrogate, and counts
only what the decision accepts (Athalye et al. 2018; Tramer et al. 2020).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Views:
    """What one pass over N images gives.

    Attributes:
        decision: (N, M) float32, detached; the first largest decides.
        scores: (N, M) float32 with a graph, of the surrogate.
        logits: (N, M) float32 with a graph, of the network without the defense.
    """

    decision: Tensor
    scores: Tensor
    logits: Tensor


class DefendedNetwork(nn.Module, ABC):
    """Pixels (N, 3, H, W) to the scores (N, M) that decide; attacks see `views`.

    Attributes:
        surrogates: the names of its surrogates, the default first; none where it has no gradient.
    """

    surrogates: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def views(self, pixels: Tensor, surrogate: str) -> Views:
        """Return both views of pixels (N, 3, H, W), by one forward pass if that is possible."""
