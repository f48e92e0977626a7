"""The images and columns of one block of adversarials while it is attacked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from regroup_store.kinds.adversarials import COLUMNS, LATER

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from regroup.attacks import AttackResult, Verification
    from regroup_cluster.workers.images import BlockRows

# Columns that an attack fills: their types, and the value of a row without an outcome.
OUTCOME: dict[str, tuple[type[np.generic], float]] = {
    "claimed": (np.bool_, False),
    "target": (np.int32, -1),
    "epsilon": (np.float32, np.nan),
    "l2": (np.float32, np.nan),
    "linf": (np.float32, np.nan),
    "mse": (np.float32, np.nan),
    "steps": (np.int64, 0),
    "queries": (np.int64, 0),
    "backward_passes": (np.int64, 0),
    **dict.fromkeys(LATER, (np.int64, 0)),
    "member": (np.int64, -1),
}
# Cleared where there is no image; cost and target stay.
_OF_THE_IMAGE = ("claimed", "epsilon", "l2", "linf", "mse", "member")
_NO_IMAGE = "the attack returned NaN or values outside [0, 1]"


class AttackBlockBuffer:
    """One block, filled batch by batch, from checkpoints or by the attack.

    Attributes:
        rows: ids and labels of the n samples.
        images: (n, 3, side, side) float32, NaN where there is none.
        outcome: the columns `OUTCOME`, (n,) each; rows without an outcome hold its fill values.
        seconds: (n,) float64, wall time per sample.
        attacked: (n,) bool, samples that the attack has finished, successfully or not.
        errors: row -> why it failed.
    """

    def __init__(self, rows: BlockRows, side: int) -> None:
        n = len(rows.sample_ids)
        self.rows = rows
        self.images = np.full((n, 3, side, side), np.nan, np.float32)
        self.outcome: dict[str, NDArray[Any]] = {
            name: np.full(n, fill, dtype) for name, (dtype, fill) in OUTCOME.items()
        }
        self.seconds = np.zeros(n)
        self.attacked = np.zeros(n, bool)
        self.errors: dict[int, str] = {}

    def fail(self, errors: Mapping[int, str]) -> None:
        """Mark rows (position -> reason) as failed."""
        self.errors |= errors

    def fill(self, rows: NDArray[np.int64], result: AttackResult) -> None:
        """Store the result of an attack on the samples at `rows`."""
        self.images[rows] = result.images
        self.seconds[rows] = result.seconds
        self.attacked[rows] = True
        for name, values in self.outcome.items():
            values[rows] = getattr(result, name)
        # A comparison with NaN is false as well.
        inside = ((result.images >= 0) & (result.images <= 1)).all(axis=(1, 2, 3))
        self._blank(dict.fromkeys(rows[~inside].tolist(), _NO_IMAGE))
        self._blank({int(rows[position]): line for position, line in result.failures.items()})

    def _blank(self, errors: Mapping[int, str]) -> None:
        self.fail(errors)
        failed = list(errors)
        self.images[failed] = np.nan
        for name in _OF_THE_IMAGE:
            self.outcome[name][failed] = OUTCOME[name][1]

    @property
    def good(self) -> NDArray[np.int64]:
        """The rows that have not failed."""
        n = len(self.rows.sample_ids)
        return np.array([row for row in range(n) if row not in self.errors], np.int64)

    def table(self, verified: Verification, names: Collection[str] = COLUMNS.names) -> pa.Table:
        """Return the samples table of the block.

        Args:
            verified: of the stored images of the `good` rows.
            names: the element's columns; one of an earlier release has fewer.
        """
        n, good = len(self.rows.sample_ids), self.good
        verdicts = {
            "success": np.zeros(n, bool),
            "success_8bit": np.zeros(n, bool),
            "adversarial_class": np.full(n, -1, np.int32),
        }
        for name, values in verdicts.items():
            values[good] = getattr(verified, name)
        columns: dict[str, Any] = {
            "sample_id": self.rows.sample_ids,
            "label": self.rows.labels,
            "status": ["failed" if row in self.errors else "ok" for row in range(n)],
            "error": [self.errors.get(row) for row in range(n)],
            **self.outcome,
            **verdicts,
        }
        return pa.table(columns, schema=COLUMNS).select([n for n in COLUMNS.names if n in names])
