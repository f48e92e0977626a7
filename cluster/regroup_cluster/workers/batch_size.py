"""A batch size that adapts to the device's memory: halved where a block would fail otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch

from regroup_cluster.dispatch.worker_log import log_event
from regroup_cluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class OutOfDeviceMemoryError(ClusterError):
    """Not even one image fits, so every attempt on this cluster would fail."""

    fatal = True


class AdaptiveBatchSize:
    """How many samples a device takes at once; halved whenever its memory runs out.

    Attributes:
        batch: samples that are attacked together.
        rows: images per forward pass.
        halved: whether that is less than requested.
    """

    def __init__(self, batch: int, rows: int) -> None:
        self.batch, self.rows, self.halved = batch, rows, False

    def attempt(self, function: Callable[[], _T]) -> _T | None:
        """Return the result of `function`, or None where it ran out of memory and sizes are halved.

        Raises:
            OutOfDeviceMemoryError: it ran out of memory with a single image.
        """
        try:
            return function()
        except torch.OutOfMemoryError as error:
            reason = str(error).splitlines()[0]
        # Outside the handler, whose traceback holds the tensors that should be freed.
        self._halve(reason)
        return None

    def _halve(self, reason: str) -> None:
        if self.rows == 1:
            raise OutOfDeviceMemoryError(
                f"out of GPU memory with a single image ({reason}): give each worker a larger "
                "share of a GPU (--gpus-per-worker), free the GPU of other processes, or use a GPU "
                "with more memory"
            )
        self.batch, self.rows = max(1, self.batch // 2), self.rows // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self.halved:
            log_event("out of GPU memory: halved", rows=self.rows, batch=self.batch, outcome=reason)
        self.halved = True
