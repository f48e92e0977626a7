"""The contract between dispatch and workers: the work on a block, its report, the retry policy.

Importing this module does not import ray.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from regroup_cluster.dispatch.stopwatch import peak_rss_bytes
from regroup_cluster.errors import ClusterUsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regroup_cluster.dispatch.stopwatch import BlockClock


@dataclass(frozen=True)
class BlockOutcome:
    """What a worker did with a block; small, since the arrays went to the store.

    Attributes:
        committed: False where another attempt had committed the block.
        samples: rows of the block.
        failed: rows among them with status "failed".
    """

    committed: bool
    samples: int
    failed: int = 0


class BlockWorker(Protocol):
    """Processes blocks, one at a time, in a worker process that keeps it between blocks."""

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        """Do the work on `block` and commit it, its phases measured by `clock`.

        May be called again for a block that is already committed.
        """
        ...


class BlockWork(Protocol):
    """All that a worker process needs for one dispatch: frozen and picklable.

    Implementations inherit from it for the defaults.

    Attributes:
        duplicable: whether two attempts at a block may run at once. False where the later attempt
            could write over the first, or where attempts would disturb each other.
    """

    duplicable: ClassVar[bool] = True

    def on_device(self, device: str) -> Self:  # noqa: ARG002 - for work with a network
        """Return this work with its network on the torch device `device`."""
        return self

    def open(self) -> BlockWorker:
        """Build the worker; called once per dispatch in each worker process."""
        ...


@dataclass(frozen=True)
class BlockReport:
    """The outcome of a block with what the attempt took.

    Attributes:
        block: index of the block.
        committed: see `BlockOutcome`.
        samples: see `BlockOutcome`.
        failed: see `BlockOutcome`.
        forward_passes: samples that went through a classifier.
        seconds: wall time of this attempt.
        phases: wall time in seconds by phase, such as read, network and write.
        peak_rss_bytes: peak memory of the worker process when the report was made.
    """

    block: int
    committed: bool
    samples: int
    failed: int
    forward_passes: int
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    peak_rss_bytes: int = field(default_factory=peak_rss_bytes, compare=False)


@dataclass(frozen=True)
class RetryPolicy:
    """When to abandon an attempt or a block, and when to run two attempts at once.

    A straggler is a block that still runs when no other waits and a worker is idle, for longer than
    both `straggler_s` and `straggler_factor` times the median of the finished blocks. It is started
    once more, elsewhere; the first answer wins and the other attempt is killed. The two count as
    one try, and only the first answer is reported.

    Attributes:
        attempts: tries per block; an exception, a death or a passed deadline uses up one.
        deadline_s: seconds that one attempt may take before its worker is killed (for a task:
            plus `ready_deadline_s` to be placed).
        ready_deadline_s: seconds that a worker may take to be placed and built; a dispatch that
            has no other worker for that long ends.
        straggler_factor: see above; infinite for no duplicates.
        straggler_s: see above; seconds.

    Raises:
        ClusterUsageError: a value is out of range.
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
                f"straggler_factor is {self.straggler_factor:g} and straggler_s "
                f"{self.straggler_s:g}: at least 1 and 0 are needed"
            )

    def without_duplicates(self) -> RetryPolicy:
        """Return this policy without second attempts at stragglers."""
        return replace(self, straggler_factor=inf)

    def for_work(self, work: BlockWork) -> RetryPolicy:
        """Return this policy, without duplicates where `work` does not allow them."""
        return self if work.duplicable else self.without_duplicates()


@dataclass(frozen=True)
class BlockFailure:
    """A block whose tries are used up.

    Attributes:
        block: index of the block.
        attempts: tries made; a duplicate is part of its block's try (see `RetryPolicy`).
        reason: the last try's, usually a traceback.
    """

    block: int
    attempts: int
    reason: str


@dataclass(frozen=True)
class DispatchReport:
    """The outcome of every block, each in `reports` or in `failures`, in block order."""

    reports: tuple[BlockReport, ...]
    failures: tuple[BlockFailure, ...]
