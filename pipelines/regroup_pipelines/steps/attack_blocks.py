"""How many samples a block of an attack has: so many that it lasts minutes, not an hour."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regroup.attacks import AttackSpec

MOST_ROWS = 256
# The network sees batches of a fixed size, padded: a block of fewer rows would take as long.
FEWEST_ROWS = {"cpu": 16, "gpu": 64}
# Forward and backward passes of a block with images of 224 px: minutes of a ResNet-50, which does
# some 10 a second on a CPU core and 1500 on a recent GPU.
PASSES = {"cpu": 3_000, "gpu": 300_000}
SIDE = 224


def automatic_rows(spec: AttackSpec, side: int, device: str) -> int:
    """Rows of a block, from the passes that a sample may take; `device`: "cpu" or "gpu".

    side: of the images in px; a network of smaller images is taken to be as much faster.
    """
    budget = PASSES[device] * (SIDE / side) ** 2
    fewest = FEWEST_ROWS[device]
    rows = int(budget / max(spec.cost().passes, 1)) // fewest * fewest
    return whole_groups(spec, min(max(rows, fewest), MOST_ROWS))


def whole_groups(spec: AttackSpec, rows: int) -> int:
    """`rows`, rounded up to whole groups of an attack that couples samples."""
    group = spec.facts.group or 1
    return ceil(rows / group) * group
