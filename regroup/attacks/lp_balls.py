"""The balls that PGD climbs in: the step, the projection, and when one holds all there is.

A reduction over the pixels of an image may differ in its last bits with the number of images
beside it, so callers give batches of one size, as `AttackedNetwork.batches` cuts them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch

if TYPE_CHECKING:
    from torch import Tensor

_PIXELS = (1, 2, 3)


class Ball(ABC):
    """A ball in one norm around each clean image.

    Radii and step sizes are (N, 1, 1, 1), or one number for all.
    """

    failure: ClassVar[str]  # what is said of a sample whose gradient shows no direction
    exponent: ClassVar[float]  # 1 / p of the norm

    def step(
        self,
        x: Tensor,
        clean: Tensor,
        gradient: Tensor,
        size: Tensor | float,
        epsilon: Tensor | float,
    ) -> tuple[Tensor, Tensor]:
        """A step up the gradient, then into the ball around `clean`, then into [0, 1].

        x, clean, gradient: (N, C, H, W), all left as they are. Returns the new x, which stays
        where it is when its gradient is zero, and (N,) bool: False where the gradient is no number
        and the new x means nothing.
        """
        moved, usable = self._direction(gradient)
        # In place: memory for every intermediate costs more than the arithmetic.
        offset = moved.mul_(size).add_(x).sub_(clean)
        return self._shorten(offset, epsilon).add_(clean).clamp_(0, 1), usable

    def project(self, pixels: Tensor, clean: Tensor, epsilon: Tensor | float) -> Tensor:
        """`pixels` (N, C, H, W), brought into the ball around `clean`, then into [0, 1]."""
        return self._shorten(pixels - clean, epsilon).add_(clean).clamp_(0, 1)

    @abstractmethod
    def _direction(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """New memory: the steepest step of size 1 in this norm; and (N,), whether it is one."""

    @abstractmethod
    def _shorten(self, offset: Tensor, epsilon: Tensor | float) -> Tensor:
        """To a size of at most epsilon, in place."""

    def whole_box(self, size: int) -> float:
        """The radius at which the ball around any image of `size` values holds all of [0, 1]."""
        return float(size**self.exponent)


class LinfBall(Ball):
    """No value differs by more than the radius."""

    failure = "the network's gradient is NaN"
    exponent = 0.0

    def _direction(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Signs, of infinite values too; the largest of values is NaN where one of them is."""
        return gradient.sign(), ~gradient.amax(dim=_PIXELS).isnan()

    def _shorten(self, offset: Tensor, epsilon: Tensor | float) -> Tensor:
        if isinstance(epsilon, float):
            return offset.clamp_(-epsilon, epsilon)
        # The same as a clamp, which is several times slower with a bound for each row.
        torch.maximum(offset, -epsilon, out=offset)
        return torch.minimum(offset, epsilon, out=offset)


class L2Ball(Ball):
    """The Euclidean distance of all values together is at most the radius."""

    failure = "the network's gradient is NaN or infinite"
    exponent = 0.5

    def _direction(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        length = _lengths(gradient)
        return gradient / torch.where(length > 0, length, 1), length.flatten().isfinite()

    def _shorten(self, offset: Tensor, epsilon: Tensor | float) -> Tensor:
        """Along the line to the clean image; [0, 1], which comes after, only brings it nearer."""
        length = _lengths(offset)
        return offset.mul_(torch.where(length > epsilon, epsilon / length, 1))


def _lengths(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1, 1, 1) in the same dtype; in float64 no square becomes 0 or inf."""
    lengths: Tensor = torch.linalg.vector_norm(images, 2, _PIXELS, True, dtype=torch.float64)
    return lengths.to(images.dtype)


BALLS: dict[str, Ball] = {"linf": LinfBall(), "l2": L2Ball()}
