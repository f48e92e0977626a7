"""One JSON line for every start and end of an attempt, on the worker's standard error.

Ray keeps each worker's standard error in a file of the node (`worker-*.err` in the session's
`logs`). Our sessions do not forward those files, so the driver's terminal stays quiet.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from regroup.kernels.allocator import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from regroup_cluster.dispatch.blocks import BlockReport

LOGGER = "cluster.worker"
# Ray sends answers below 100 kB in line; a larger one would be fetched from the worker's node,
# which may be lost or hung by then.
REASON_CHARACTERS = 10_000


@cache
def run_id() -> str:
    """The id of this process's run, eight hexadecimal digits; it names the job in the logs."""
    return secrets.token_hex(4)


@dataclass(frozen=True)
class Label:
    """Names a dispatch in the logs of its workers.

    Attributes:
        job: the run's id.
        step: what the dispatch makes, such as "extract digits-val".
    """

    job: str = field(default_factory=run_id)
    step: str = ""


@dataclass(frozen=True)
class AttemptError:
    """An exception that a block raised, as text: not every exception survives pickling.

    Attributes:
        reason: the traceback.
        ends_job: the message where the exception says that other attempts would meet it as well
            (a full store), else None.
        usage: whether it then says that the user asked for what cannot be (`exit_status` 2).
    """

    reason: str
    ends_job: str | None = None
    usage: bool = False


def attempt(
    function: Callable[[int], BlockReport], block: int, number: int, label: Label
) -> BlockReport | AttemptError:
    """Run attempt `number` (from 1) at `block`, in the worker process, and log its outcome."""
    keep_freed_memory()
    seen = {**asdict(label), "block": block, "attempt": number, **_place()}
    _log(logging.INFO, "start", seen)
    started = time.perf_counter()
    try:
        report = function(block)
    except Exception as error:
        reason = traceback.format_exc()[-REASON_CHARACTERS:]
        seconds = round(time.perf_counter() - started, 3)
        outcome = f"{type(error).__name__}: {error}"[:REASON_CHARACTERS]
        _log(logging.ERROR, "failure", seen, seconds=seconds, outcome=outcome, traceback=reason)
        ends_job = str(error) if getattr(error, "ends_job", False) else None
        return AttemptError(reason, ends_job, getattr(error, "exit_status", 1) == 2)
    seconds = round(time.perf_counter() - started, 3)
    outcome = "committed" if report.committed else "another attempt had committed"
    _log(logging.INFO, "end", seen, seconds=seconds, outcome=outcome)
    return report


def log_event(event: str, **fields: object) -> None:
    """Log something that a worker has to say, in the midst of a block."""
    _log(logging.WARNING, event, _place(), **fields)


def _log(level: int, event: str, seen: dict[str, Any], **more: object) -> None:
    _logger().log(level, event, extra={"fields": {**seen, **more}})


@cache
def _place() -> dict[str, object]:
    """Where this process runs: node id ("" outside Ray) and pid."""
    import ray

    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
    return {"node": node, "pid": os.getpid()}


@cache
def _logger() -> logging.Logger:
    """The worker's logger, which has its own handler: Ray sets up none in a worker."""
    logger = logging.getLogger(LOGGER)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


class JsonFormatter(logging.Formatter):
    """A record as one JSON line: time (UTC), level, event, and the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`; what is not JSON becomes text."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json.dumps(line, default=str)
