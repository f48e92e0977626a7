"""Choosing k: how many of the last taps vote (paper arXiv 2006.10679, section 3.2)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

THRESHOLD = 0.75


@dataclass(frozen=True)
class KChoice:
    """The outcome of the rule.

    Attributes:
        k: how many of the last taps vote.
        count: how many taps reach the threshold, anywhere (the paper's number).
        threshold: an accuracy in (0, 1].
        reached: False if k fell back to 1.
    """

    k: int
    count: int
    threshold: float
    reached: bool


def choose_k(tap_accuracy: ArrayLike, threshold: float = THRESHOLD) -> KChoice:
    """Choose k from the accuracy of each tap alone, both signs, (T,) in [0, 1].

    Accuracies are those on correctly classified clean validation samples, taps in execution order,
    the logits last. The last taps that reach the threshold one after another vote, and so do the
    logits, which may stay below it. If there are none, k = 1, with a warning.

    Raises:
        ConfigurationError: a threshold outside (0, 1], or accuracies outside [0, 1].
    """
    choice = apply_rule(tap_accuracy, threshold)
    if not choice.reached:
        warnings.warn(fallback_sentence(tap_accuracy, choice), stacklevel=2)
    return choice


def apply_rule(tap_accuracy: ArrayLike, threshold: float = THRESHOLD) -> KChoice:
    """Choose k like `choose_k`, without the warning."""
    accuracy = np.asarray(tap_accuracy, np.float64)
    if not 0 < threshold <= 1:
        raise ConfigurationError(f"threshold {threshold} of k: it must be above 0 and at most 1")
    if accuracy.ndim != 1 or not len(accuracy) or not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise ConfigurationError("accuracies to choose k by must be one per tap, each from 0 to 1")
    reaching = accuracy >= threshold
    count = int(reaching.sum())
    below = np.flatnonzero(~reaching[:-1])
    run = len(reaching) - 1 - (below[-1] + 1 if len(below) else 0)
    reached = bool(run or reaching[-1])
    return KChoice(int(run) + 1, count, threshold, reached)


def fallback_sentence(tap_accuracy: ArrayLike, choice: KChoice) -> str:
    """Say why the rule fell back to k = 1, and what to do."""
    where = f"none of the last, only {choice.count} earlier" if choice.count else "no tap"
    return (
        f"choosing k: {where} reaches an accuracy of {choice.threshold:g} alone (best "
        f"{np.max(tap_accuracy):.3f}); k is 1, the logits: lower the threshold or set k"
    )
