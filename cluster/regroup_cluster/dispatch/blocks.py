"""Dispatch of blocks to workers: the words that jobs share, and the two ways to run one. DESIGN §6.

Importing this module does not import ray.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from regroup_cluster.dispatch.stopwatch import peak_rss_bytes
from regroup_cluster.errors import ClusterUsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class BlockReport:
    """What a worker did with a block; small, the arrays went to the store.

    Attributes:
        block: index of the block.
        committed: False when another attempt had committed it.
        samples: rows of the block.
        failed: rows among them with status "failed".
        forward_passes: samples that went through a classifier.
        seconds: wall time of this attempt.
        phases: wall time of its phases, such as read, network and write.
        peak_rss_bytes: the most memory that its process had held when the report was made.
    """

    block: int
    committed: bool
    samples: int
    failed: int
    forward_passes: int
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    peak_rss_bytes: int = field(default_factory=peak_rss_bytes, compare=False)


class BlockWorker(Protocol):
    """Lives inside an actor and does one block at a time."""

    def process(self, block: int) -> BlockReport:
        """Do `block` and commit it. May be called again for a block that is already committed."""
        ...


WorkerFactory = Callable[[], BlockWorker]
"""Picklable; called inside the actor."""


@dataclass(frozen=True)
class RetryPolicy:
    """When to give up, and when to try twice at once.

    A straggler is a block that still runs when no other waits and a worker is idle, for longer than
    both `straggler_s` and `straggler_factor` times the median of the finished blocks. It is started
    once more, elsewhere; the first answer wins and the other attempt is killed. The two count as
    one try, and the one report that is kept as the block's.

    Attributes:
        attempts: how often a block is tried; an exception, a death or a deadline uses up one.
        deadline_s: seconds that one attempt may take before its worker is killed (of a task: not
            counting `ready_deadline_s` to be placed).
        ready_deadline_s: seconds that a worker may take to be placed and built; a job that has
            no other worker for that long ends.
        straggler_factor: see above; infinite: no duplicates.
        straggler_s: see above; seconds.
    """

    attempts: int = 3
    deadline_s: float = 3600.0
    ready_deadline_s: float = 900.0
    straggler_factor: float = 2.0
    straggler_s: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ClusterUsageError(f"attempts is {self.attempts}: at least one is needed")
        if not (self.deadline_s > 0 and self.ready_deadline_s > 0):
            raise ClusterUsageError("a deadline must be more than zero seconds")
        if not (self.straggler_factor >= 1 and self.straggler_s >= 0):
            raise ClusterUsageError(
                "a straggler takes at least 1 times the median and 0 seconds: straggler_factor is "
                f"{self.straggler_factor:g}, straggler_s {self.straggler_s:g}"
            )


@dataclass(frozen=True)
class BlockFailure:
    """A block that was given up: how often it was tried, and the last reason (a traceback).

    A duplicate is part of its block's try (see `RetryPolicy`).
    """

    block: int
    attempts: int
    reason: str


@dataclass(frozen=True)
class DispatchReport:
    """The outcome of every block, each in `reports` or in `failures`, in block order."""

    reports: tuple[BlockReport, ...]
    failures: tuple[BlockFailure, ...]
