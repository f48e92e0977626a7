"""The log of the workers: one JSON line per event, on the worker's standard error.

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
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

LOGGER = "regroup_cluster.worker"


@cache
def run_id() -> str:
    """Return the id of this process's run, eight hexadecimal digits."""
    return secrets.token_hex(4)


@dataclass(frozen=True)
class DispatchLabel:
    """Names a dispatch in the logs of its workers.

    Attributes:
        run: the run's id.
        step: what the dispatch makes, such as "extract digits-val".
    """

    run: str = field(default_factory=run_id)
    step: str = ""


class AttemptLog:
    """The lines of one attempt: `start` at once, then `end` or `failure` with its seconds."""

    def __init__(self, label: DispatchLabel, block: int, number: int) -> None:
        self._fields = {**asdict(label), "block": block, "attempt": number, **_process()}
        _log(logging.INFO, "start", self._fields)
        self._started = time.perf_counter()

    def end(self, outcome: str) -> None:
        """Log an attempt that returned."""
        _log(logging.INFO, "end", self._fields, seconds=self._seconds(), outcome=outcome)

    def failure(self, outcome: str, traceback: str) -> None:
        """Log an attempt that raised."""
        found = {"seconds": self._seconds(), "outcome": outcome, "traceback": traceback}
        _log(logging.ERROR, "failure", self._fields, **found)

    def _seconds(self) -> float:
        return round(time.perf_counter() - self._started, 3)


def log_event(event: str, **fields: object) -> None:
    """Log something that a worker notices while it processes a block."""
    _log(logging.WARNING, event, _process(), **fields)


def _log(level: int, event: str, fields: dict[str, Any], **more: object) -> None:
    _logger().log(level, event, extra={"fields": {**fields, **more}})


@cache
def _process() -> dict[str, object]:
    """Return the node id ("" outside Ray) and the pid of this process."""
    import ray  # a worker has it; in-process use of this module should not need it at import

    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
    return {"node": node, "pid": os.getpid()}


@cache
def _logger() -> logging.Logger:
    """Return the worker's logger, with a handler of its own: Ray sets up none in a worker."""
    logger = logging.getLogger(LOGGER)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON line: time (UTC), level, event, and the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`; values that JSON does not know become text."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json.dumps(line, default=str)
