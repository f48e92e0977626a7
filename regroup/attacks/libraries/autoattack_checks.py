"""AutoAttack's own checks: its package's remarks on networks that its attacks may not suit."""

from __future__ import annotations

import logging
import sys
from enum import IntFlag
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from torch import Tensor


class Remark(IntFlag):
    """What the package remarks on; the bits that are stored (`FLAGS` of kinds/adversarials.py)."""

    RANDOMISED = 1
    PROBABILITIES = 2
    DYNAMIC = 4
    ZERO_GRADIENT = 8
    SQUARE_ALONE = 16


_PHRASES = {
    "randomized defense": Remark.RANDOMISED,
    "probability distribution": Remark.PROBABILITIES,
    "dynamic defense": Remark.DYNAMIC,
    "zero gradient": Remark.ZERO_GRADIENT,
}


class RemarksLogger(logging.Logger):
    """A logger for the package, which prints nothing and keeps its remarks.

    Attributes:
        remarks: all so far.
    """

    def __init__(self) -> None:
        super().__init__("autoattack's remarks", logging.WARNING)
        self.remarks = Remark(0)

    def handle(self, record: logging.LogRecord) -> None:
        """Keep a remark."""
        text = record.getMessage()
        for phrase, remark in _PHRASES.items():
            if phrase in text:
                self.remarks |= remark


def run_checks(
    checks: ModuleType,
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    logger: RemarksLogger,
) -> None:
    """Run the checks of a network that come before the attacks; they take seven forward passes.

    Args:
        checks: the package's module of this name.
        model: maps images (n, C, H, W) to logits.
        images: (n, C, H, W), clean.
        labels: (n,).
        logger: takes the remarks.
    """
    checks.check_randomized(model, images, labels, logger=logger)
    checks.check_range_output(model, images, logger=logger)
    # This one counts calls by their names, in a table of the module, with a trace of this thread.
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))
    tracing = sys.gettrace()
    try:
        checks.check_dynamic(model, images, logger=logger)
    finally:
        sys.settrace(tracing)
