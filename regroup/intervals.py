"""Confidence intervals of proportions."""

from __future__ import annotations

import math
from statistics import NormalDist

from regroup.errors import ConfigurationError


def wilson(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval (low, high) of `successes` / `total`, within [0, 1].

    Wilson 1927; Newcombe 1998, method 3. A total of 0 gives (0, 1).

    Raises:
        ConfigurationError: impossible counts, or a confidence outside (0, 1).
    """
    if not 0 <= successes <= total:
        raise ConfigurationError(
            f"{successes} of {total}: give counts with 0 <= successes <= total"
        )
    if not 0 < confidence < 1:
        raise ConfigurationError(f"confidence {confidence}: it must lie between 0 and 1")
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    failures, spread = total - successes, z * z
    centre = successes + spread / 2
    half = z * math.sqrt(successes * failures / total + spread / 4)
    low = (centre - half) / (total + spread)
    # For all successes the formula gives 1 only up to rounding; for none exactly 0.
    high = 1.0 if failures == 0 else (centre + half) / (total + spread)
    return low, high
