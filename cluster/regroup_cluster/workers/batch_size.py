"""Too many images for a device's memory: fewer at once, rather than a block that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch

from regroup_cluster.dispatch.worker_log import log_event
from regroup_cluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class NoRoomError(ClusterError):
    """Not even one image fits: other attempts on this cluster would meet it as well."""

    fatal = True


class DeviceRoom:
    """How much a device takes at once; halved whenever that was too much, and kept so.

    Attributes:
        batch: samples that are attacked together.
        rows: images in each batch that the network sees.
        halved: whether that is less than was asked for.
    """

    def __init__(self, batch: int, rows: int) -> None:
        self.batch, self.rows, self.halved = batch, rows, False

    def attempt(self, work: Callable[[], T]) -> T | None:
        """What `work` returns, or None when it ran out of memory: the room is then halved.

        Raises:
            NoRoomError: it did with a single image.
        """
        try:
            return work()
        except torch.OutOfMemoryError as error:
            told = str(error).splitlines()[0]
        # Out of the handler, whose traceback holds what is to be freed.
        self._halve(told)
        return None

    def _halve(self, told: str) -> None:
        if self.rows == 1:
            raise NoRoomError(
                f"out of GPU memory with a single image ({told}): give each worker a larger share "
                "of a GPU (--gpus-per-worker), free the GPU of other processes, or use a GPU with "
                "more memory"
            )
        self.batch, self.rows = max(1, self.batch // 2), self.rows // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self.halved:
            log_event("out of GPU memory: halved", rows=self.rows, batch=self.batch, outcome=told)
        self.halved = True
