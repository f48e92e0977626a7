"""Counters and histograms of a dispatch for Prometheus, through `ray.util.metrics`.

Ray exports them, prefixed with `ray_`, on each node's metrics port (docs/cluster.md). The driver
emits all of them, phases included: what a worker counts itself is lost when the worker is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Histogram

    from regroup_cluster.dispatch.blocks import BlockReport

_TAGS = ("kind", "step")
# Seconds; a block should take minutes at most.
_BOUNDARIES = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0]


@dataclass(frozen=True)
class _Instruments:
    blocks: Counter
    samples: Counter
    failed_samples: Counter
    failed_blocks: Counter
    retries: Counter
    phase_seconds: Counter
    block_seconds: Histogram


@lru_cache(maxsize=1)
def _instruments() -> _Instruments:
    """Return the instruments of this process: Ray allows each name only once."""
    from ray.util.metrics import Counter, Histogram  # ray: only for work

    return _Instruments(
        blocks=Counter("regroup_blocks", "Blocks done", _TAGS),
        samples=Counter("regroup_samples", "Rows of the blocks done", _TAGS),
        failed_samples=Counter("regroup_failed_samples", "Rows of them that failed", _TAGS),
        failed_blocks=Counter("regroup_failed_blocks", "Blocks that failed for good", _TAGS),
        retries=Counter("regroup_retries", "Failed attempts that were retried", _TAGS),
        phase_seconds=Counter(
            "regroup_phase_seconds", "Seconds that workers spent, by phase", (*_TAGS, "phase")
        ),
        block_seconds=Histogram("regroup_block_seconds", "Seconds per block", _BOUNDARIES, _TAGS),
    )


class MetricsProgress:
    """Counts the outcomes of one step's blocks; the tag `kind` is the step's first word."""

    def __init__(self, step: str) -> None:
        self._tags = {"kind": step.partition(" ")[0], "step": step}

    def start(self, blocks: int) -> None:
        """Do nothing: a counter exists once it has counted."""

    def update(self, report: BlockReport) -> None:
        """Count a finished block."""
        instruments = _instruments()
        instruments.block_seconds.observe(report.seconds, self._tags)
        self._add(instruments.blocks, 1)
        self._add(instruments.samples, report.samples)
        self._add(instruments.failed_samples, report.failed)
        for phase, seconds in report.phases.items():
            self._add(instruments.phase_seconds, seconds, phase=phase)

    def tick(self) -> None:
        """Do nothing: Ray exports on its own."""

    def retry(self, block: int, reason: str) -> None:  # noqa: ARG002
        """Count a failed attempt."""
        self._add(_instruments().retries, 1)

    def failure(self, block: int, reason: str) -> None:  # noqa: ARG002
        """Count a failed block."""
        self._add(_instruments().failed_blocks, 1)

    def close(self) -> None:
        """Do nothing: the last values are exported until the driver ends."""

    def _add(self, counter: Counter, amount: float, **tags: str) -> None:
        if amount > 0:  # Ray refuses zero
            counter.inc(amount, {**self._tags, **tags})
