"""Random banks and accumulators with the shapes of a network's taps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from regroup.bank import Bank, pmf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def random_bank(taps: Sequence[tuple[str, int]], classes: int) -> Bank:
    """Draw mixtures of lognormal channels, a tenth of them dead, independently for each class.

    Args:
        taps: (name, channels) in execution order.
        classes: number of classes.
    """
    random = np.random.default_rng(0)
    mixtures = []
    for _, channels in taps:
        sizes = random.lognormal(size=(2, 1, channels))
        sizes[random.random(sizes.shape) < 0.1] = 0.0
        mixtures.append(pmf(sizes * random.lognormal(sigma=0.3, size=(2, classes, channels))))
    names = tuple(name for name, _ in taps)
    return Bank(names, tuple(mixtures), np.full(classes, 50, np.int64))


def random_accumulators(bank: Bank, samples: int, device: str) -> tuple[list[Tensor], Tensor]:
    """Draw labels (samples,), and accumulators (samples, 2, C) float32 per tap around mixtures."""
    random = np.random.default_rng(1)
    labels = random.integers(0, bank.num_classes, samples)
    accumulators = []
    for mixtures in bank.mixtures:
        drawn = random.lognormal(sigma=0.5, size=(samples, 2, mixtures.shape[2]))
        values = (1e3 * mixtures[:, labels].swapaxes(0, 1) * drawn).astype(np.float32)
        accumulators.append(torch.from_numpy(values).to(device))
    return accumulators, torch.from_numpy(labels).to(device)
