"""The scale of every voter of a bank: by how much its divergences differ between classes.

Divergences of different voters are of different sizes: a tap with dead channels has some of
-log(delta) = 46 nats each. Divided by its scale, every voter counts alike, as it does in Borda's
sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class ScaleSums:
    """The scale of every voter: a mean over images of its divergences' deviation over classes.

    Attributes:
        count: images seen.
        total: (V,) float64, the sum of the standard deviations (of the population of M classes).
    """

    def __init__(self, voters: int) -> None:
        self.count = 0
        self.total = np.zeros(voters)

    def add(self, divergences: Tensor) -> None:
        """Add images by their divergences (N, V, M)."""
        spread = divergences.detach().double().std(dim=-1, correction=0)
        self.count += len(spread)
        self.total += spread.sum(dim=0).cpu().numpy()

    def scales(self) -> NDArray[np.float64]:
        """Return sigma (V,) float64; 1 for a voter that never tells two classes apart."""
        mean = self.total / max(self.count, 1)
        return np.where(mean > 0, mean, 1.0)
