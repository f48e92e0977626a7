"""Target classes: drawn once for each sample, the same for every attack with one seed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable


def draw_target(seed: int, sample_id: str, label: int, num_classes: int) -> int:
    """Return a class other than `label`, uniform over the others; depends on the arguments alone.

    Raises:
        ConfigurationError: there are fewer than two classes.
    """
    if num_classes < 2:
        raise ConfigurationError(
            f"a targeted attack needs two classes, the model has {num_classes}"
        )
    key = json.dumps([seed, "target", sample_id]).encode()
    draw = int.from_bytes(hashlib.sha256(key).digest()[:8], "little") % (num_classes - 1)
    return draw + (draw >= label)


def check_targets(
    targets: Iterable[int], labels: Iterable[int], sample_ids: Iterable[str], num_classes: int
) -> None:
    """Raise ConfigurationError for the first target that is the label, or not a class."""
    for target, label, name in zip(targets, labels, sample_ids, strict=True):
        if target == label:
            raise ConfigurationError(
                f"the target of sample {name} is its own label {label}: give another class"
            )
        if not 0 <= target < num_classes:
            raise ConfigurationError(
                f"the target of sample {name} is class {target}: the model has classes 0 to "
                f"{num_classes - 1}"
            )
