"""Accuracy against perturbation size, from one run of an attack under the `minimal` protocol.

The attack found for each sample the smallest perturbation that it could; so at any epsilon the
samples that it breaks are those whose perturbation is no larger. No epsilon needs a run of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class RobustnessCurve:
    """Counts over `total` samples at each epsilon, all (E,).

    Attributes:
        epsilons: ascending float64.
        broken: int64, samples whose successful perturbation is no larger.
        softmax: int64, samples that softmax classifies correctly when exactly those are attacked.
        regroup: int64, the same for REGroup.
        total: all samples.
    """

    epsilons: NDArray[np.float64]
    broken: NDArray[np.int64]
    softmax: NDArray[np.int64]
    regroup: NDArray[np.int64]
    total: int


def robustness_curve(
    sizes: NDArray[np.floating],
    success: NDArray[np.bool_],
    regroup_clean: NDArray[np.bool_],
    regroup_attacked: NDArray[np.bool_],
    epsilons: NDArray[np.float64] | None = None,
) -> RobustnessCurve:
    """Return the curve of N samples that softmax classifies correctly when they are clean.

    The perturbations are the smallest that fool softmax: for REGroup the curve is what such an
    attacker achieves, not the least accuracy within epsilon.

    Args:
        sizes: (N,), the size of each sample's perturbation.
        success: (N,), whether it fools softmax.
        regroup_clean: (N,), whether REGroup is right on the clean image.
        regroup_attacked: (N,), whether REGroup is right on the attacked image.
        epsilons: where to count; None: 0 and every size at which a sample is broken, so that the
            curve is complete.
    """
    reached = np.where(success, sizes, np.inf).astype(np.float64)
    if epsilons is None:
        epsilons = np.unique(np.append(reached[np.isfinite(reached)], 0.0))
    points = np.sort(np.asarray(epsilons, np.float64))
    # Samples in the order in which they break: how many, and REGroup's gains and losses.
    order = np.argsort(reached, kind="stable")
    broken = np.searchsorted(reached[order], points, side="right")
    change = regroup_attacked[order].astype(np.int64) - regroup_clean[order]
    changed = np.concatenate(([0], np.cumsum(change)))[broken]
    total = len(reached)
    return RobustnessCurve(
        points, broken, total - broken, int(regroup_clean.sum()) + changed, total
    )
