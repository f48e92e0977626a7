"""Samples per block of an attack, chosen so that a block takes minutes, not an hour."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regroup.attacks import AttackSpec

MOST_ROWS = 256
# The network sees batches of a fixed size, padded: smaller blocks would not take less time.
FEWEST_ROWS = {"cpu": 16, "gpu": 64}
# Forward and backward passes per block with images of 224 px. A ResNet-50 does about 10 passes per
# second on a CPU core and 1500 on a recent GPU, so that a block takes minutes.
PASSES = {"cpu": 3_000, "gpu": 300_000}
SIDE = 224


def automatic_rows(spec: AttackSpec, side: int, device: str) -> int:
    """Return the rows per block for the passes that a sample may take.

    Args:
        spec: the attack.
        side: side of the images in px; the time per pass is taken to grow with its square.
        device: "cpu" or "gpu".
    """
    budget = PASSES[device] * (SIDE / side) ** 2
    fewest = FEWEST_ROWS[device]
    rows = int(budget / max(spec.cost().passes, 1)) // fewest * fewest
    return whole_groups(spec, min(max(rows, fewest), MOST_ROWS))


def whole_groups(spec: AttackSpec, rows: int) -> int:
    """Round `rows` up to a multiple of the group size of an attack that couples samples."""
    group = spec.facts.group or 1
    return ceil(rows / group) * group
