"""A fixed image pair: the logits that a network gives for it show whether it is still the same.

Bits differ between processors, so logits are compared within a tolerance and never hashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from regroup.errors import ConfigurationError, plain_line
from regroup.models.outputs import logits_of

if TYPE_CHECKING:
    from torch import Tensor

    from regroup.models.classifier import Classifier

PROBE_SEED, PROBE_IMAGES = 0, 2
# Logits beyond these are not recorded: a manifest stays small.
PROBE_CLASSES = 1000
# Image by image; None where not finite.
Logits = Sequence[Sequence[float | None]]
# Of the largest recorded logit: between runs and machines; between two passes of one process.
TOLERANCE, PASS_TOLERANCE = 1e-4, 1e-6


def probe_pixels(side: int) -> Tensor:
    """Return the image pair, (2, 3, side, side) in [0, 1]: noise, the same for all time."""
    noise = np.random.RandomState(PROBE_SEED).random_sample((PROBE_IMAGES, 3, side, side))
    return torch.from_numpy(noise.astype(np.float32))


def probe_logits(classifier: Classifier) -> Tensor:
    """Return the logits of the pair, (2, M) float32, on the CPU.

    Of all the network's classes, in its own precision without autocast; not counted as passes.

    Raises:
        ConfigurationError: the network fails.
    """
    pixels = probe_pixels(classifier.preprocessing.crop)
    with torch.no_grad():
        try:
            inputs = classifier.normalize(pixels)
            layout = classifier.compute.memory_format
            output = classifier.network(inputs.contiguous(memory_format=layout))
            logits = logits_of(output, PROBE_IMAGES)
        except Exception as error:  # the user's code may raise anything
            reason = plain_line(f"{type(error).__name__}: {error}")
            raise ConfigurationError(
                f"model {classifier.name} fails on two images of noise of "
                f"{tuple(pixels.shape[1:])}: {reason}"
            ) from error
    return logits.float().clone()


def recorded_logits(logits: Tensor) -> Logits:
    """Return what is recorded of `logits`: seven digits; None where not finite."""
    rows = logits[:, :PROBE_CLASSES].tolist()
    return tuple(
        tuple(float(f"{value:.7g}") if np.isfinite(value) else None for value in row)
        for row in rows
    )


def logit_difference(logits: Logits, recorded: Logits) -> float:
    """Return the largest difference of logits to recorded ones, as a share of the largest.

    Infinite where their shapes, or what is finite, differ.
    """
    now = np.array(logits, np.float64)
    then = np.array(recorded, np.float64)
    if now.shape != then.shape or (np.isnan(now) != np.isnan(then)).any():
        return float("inf")
    scale = float(np.nanmax(np.abs(then), initial=0.0))
    largest = float(np.nanmax(np.abs(now - then), initial=0.0))
    return largest / scale if scale else float("inf" if largest else 0)


def require_repeatable(classifier: Classifier) -> None:
    """Refuse a network whose logits are random, or depend on earlier passes.

    Raises:
        ConfigurationError: a second pass gives other logits.
    """
    with torch.random.fork_rng(devices=[]):
        first, second = (recorded_logits(probe_logits(classifier)) for _ in range(2))
    noise = logit_difference(second, first)
    if noise > PASS_TOLERANCE:
        raise ConfigurationError(
            f"model {classifier.name} gives other logits for the same images in a second pass (by "
            f"{noise:.1g} of the largest): turn off what is random or remembers (dropout, noise) "
            "in eval(), or set `stochastic = True` on the network if that is meant"
        )
