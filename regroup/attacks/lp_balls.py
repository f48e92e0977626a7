"""The balls that PGD climbs in: the step, the projection, and the radius that covers [0, 1].

A reduction over the pixels of an image may differ in its last bits with the number of images beside
it, so callers pass batches of one size, as `AttackedNetwork.batches` cuts them.
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

    Attributes:
        failure: the reason given for a sample whose gradient has no usable direction.
        exponent: 1 / p of the norm.
    """

    failure: ClassVar[str]
    exponent: ClassVar[float]

    def step(
        self,
        x: Tensor,
        clean: Tensor,
        gradient: Tensor,
        size: Tensor | float,
        epsilon: Tensor | float,
    ) -> tuple[Tensor, Tensor]:
        """Step up the gradient, then into the ball around `clean`, then into [0, 1].

        Args:
            x: (N, C, H, W); not modified, like all arguments.
            clean: (N, C, H, W).
            gradient: (N, C, H, W).
            size: of the step.
            epsilon: radius of the ball.

        Returns:
            The new x, unchanged where its gradient is zero; and (N,) bool: False where the gradient
                is not finite and the new x is meaningless.
        """
        moved, usable = self._direction(gradient)
        # In place: allocating every intermediate costs more than the arithmetic.
        offset = moved.mul_(size).add_(x).sub_(clean)
        return self._shorten(offset, epsilon).add_(clean).clamp_(0, 1), usable

    def project(self, pixels: Tensor, clean: Tensor, epsilon: Tensor | float) -> Tensor:
        """Project `pixels` (N, C, H, W) into the ball around `clean`, then into [0, 1]."""
        return self._shorten(pixels - clean, epsilon).add_(clean).clamp_(0, 1)

    @abstractmethod
    def _direction(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the steepest step of size 1 (new memory); and (N,), whether it is usable."""

    @abstractmethod
    def _shorten(self, offset: Tensor, epsilon: Tensor | float) -> Tensor:
        """Shorten to a size of at most epsilon, in place."""

    def whole_box(self, size: int) -> float:
        """Return the radius at which the ball around any image of `size` values covers [0, 1]."""
        return float(size**self.exponent)


class LinfBall(Ball):
    """Images in which no value differs by more than the radius."""

    failure = "the network's gradient is NaN"
    exponent = 0.0

    def _direction(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return signs, of infinite values too; the maximum is NaN if any value is."""
        return gradient.sign(), ~gradient.amax(dim=_PIXELS).isnan()

    def _shorten(self, offset: Tensor, epsilon: Tensor | float) -> Tensor:
        if isinstance(epsilon, float):
            return offset.clamp_(-epsilon, epsilon)
        # The same as a clamp, which is several times slower with a bound for each row.
        torch.maximum(offset, -epsilon, out=offset)
        return torch.minimum(offset, epsilon, out=offset)


class L2Ball(Ball):
    """Images whose Euclidean distance over all values is at most the radius."""

    failure = "the network's gradient is NaN or infinite"
    exponent = 0.5

    def _direction(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        length = _lengths(gradient)
        return gradient / torch.where(length > 0, length, 1), length.flatten().isfinite()

    def _shorten(self, offset: Tensor, epsilon: Tensor | float) -> Tensor:
        """Shorten along the line to the clean image; clipping to [0, 1] only brings it nearer."""
        length = _lengths(offset)
        return offset.mul_(torch.where(length > epsilon, epsilon / length, 1))


def _lengths(images: Tensor) -> Tensor:
    """Map (N, C, H, W) to (N, 1, 1, 1) in the same dtype; in float64 no square becomes 0 or inf."""
    lengths: Tensor = torch.linalg.vector_norm(images, 2, _PIXELS, True, dtype=torch.float64)
    return lengths.to(images.dtype)


BALLS: dict[str, Ball] = {"linf": LinfBall(), "l2": L2Ball()}
