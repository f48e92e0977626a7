"""The record of a run in its store: `progress.json` while it works, `run.json` at its end.

Nothing depends on either. A store that cannot be written does not fail the run: the reason is
logged, once.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import signal
import socket
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from regroup_cluster.dispatch.attempt import traceback_text
from regroup_cluster.dispatch.progress import ProgressCounts
from regroup_cluster.dispatch.stopwatch import peak_rss_bytes
from regroup_pipelines.errors import explained, signal_behind
from regroup_pipelines.steps.driver_process import this_process
from regroup_store.errors import StoreError
from regroup_store.format.environment import environment_record, git_dirty
from regroup_store.format.fingerprint import seal
from regroup_store.secrets import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

    from regroup_cluster.dispatch.blocks import BlockReport
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.store import Store

FOLDER = "runs"
EVERY_S, EVERY_S_REMOTE = 2.0, 15.0
# Also between steps, while a large dataset is listed or a large element summarised.
HEARTBEAT_S = 60.0


@dataclass
class RunRecord:
    """The record of one run of a command, from its first work on.

    Attributes:
        store: the store that the record is written to.
        command: such as "extract".
        options: the command's configuration, a dataclass.
        ledger: returns the steps finished so far as plain JSON.
        log: reports that the record cannot be written.
    """

    store: Store
    command: str
    options: Any
    ledger: Callable[[], list[JsonObject]]
    log: Callable[[str], None]
    _step: StepProgress | None = None
    _pending: Future[None] | None = None
    _complained: bool = False
    _peak_worker: int = 0
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._started = datetime.now(UTC)
        self.id = f"{self._started:%Y%m%dT%H%M%SZ}-{self.command}-{secrets.token_hex(4)}"
        self.every_s = EVERY_S_REMOTE if self.store.uri.startswith("s3://") else EVERY_S
        extra = {"git_dirty": git_dirty(), "options": public(asdict(self.options))}
        self._head = {
            "run": self.id,
            "command": self.command,
            "user": _user(),
            "host": socket.gethostname(),
            "started": self._started.isoformat(timespec="seconds"),
            "process": this_process(),
        }
        self._how = environment_record(extra)
        del self._how["created"]
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            self.show()

    def step(self, step: str, samples: int, skipped: int) -> StepProgress:
        """Begin a step; return the progress that keeps progress.json up to date during it."""
        self._step = StepProgress(self, ProgressCounts(step, samples, skipped))
        return self._step

    def show(self) -> None:
        """Write progress.json in the background unless the last one is still being written."""
        with self._lock:
            if not self._over.is_set() and (self._pending is None or self._pending.done()):
                data = self._progress("running")
                self._pending = self._writer.submit(self._write, "progress.json", data)

    def note_memory(self, peak: int) -> None:
        """Note the peak memory of a worker in bytes."""
        self._peak_worker = max(self._peak_worker, peak)

    def finish(self, error: BaseException | None) -> None:
        """Write the last progress.json, and run.json; only the first call does.

        Args:
            error: what ended the run, or None where it succeeded.
        """
        with self._lock:
            if self._over.is_set():
                return
            self._over.set()
        state, status = outcome(error)
        self._writer.shutdown()
        self._write("progress.json", self._progress(state))
        self._write("run.json", self._record(state, status, error))

    def _progress(self, state: str) -> JsonObject:
        return {
            **self._head,
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "heartbeat_s": HEARTBEAT_S,
            "state": state,
            "ray_job": _ray_job(),
            "steps_done": self.ledger(),
            "step": self._step.describe() if self._step else None,
        }

    def _record(self, state: str, status: int, error: BaseException | None) -> JsonObject:
        ended, steps = datetime.now(UTC), self.ledger()
        unfinished = self._step if self._step and not self._step.complete else None
        reason = public(str(error).splitlines()[0]) if str(error or "") else None
        if error is not None and (number := signal_behind(error)):
            reason = signal.Signals(number).name
        return {
            **self._head,
            "ended": ended.isoformat(timespec="seconds"),
            "seconds": round((ended - self._started).total_seconds(), 3),
            "state": state,
            "exit_status": status,
            "error": reason,
            "details": details(error),
            "ray_job": _ray_job(),
            **self._how,
            "steps": steps,
            "unfinished_step": unfinished.describe() if unfinished else None,
            "elements": sorted({step["ref"] for step in steps if step["blocks"]}),
            "peak_rss_bytes": {"driver": peak_rss_bytes(), "workers": self._peak_worker or None},
        }

    def _write(self, name: str, content: JsonObject) -> None:
        # What is no JSON (a path, a rate that is not finite) becomes text, or null.
        text = json.dumps(content, default=str)
        record = json.loads(text, parse_constant=lambda _: None)
        try:
            self.store.backend.replace(f"{FOLDER}/{self.id}/{name}", seal(record))
        except StoreError as error:
            if not self._complained:
                self.log(f"the run continues without its record: {error}")
            self._complained = True


class StepProgress:
    """Receives the progress of one step's blocks and writes it to progress.json periodically."""

    def __init__(self, record: RunRecord, tally: ProgressCounts) -> None:
        self._record, self._tally = record, tally

    @property
    def complete(self) -> bool:
        """Whether every block of the step is committed."""
        return self._tally.blocks == self._tally.total_blocks

    def start(self, blocks: int) -> None:
        """Begin the step and write progress.json."""
        self._tally.start(blocks)
        self._show()

    def update(self, report: BlockReport) -> None:
        """Count a block."""
        self._tally.update(report)
        self._record.note_memory(report.peak_rss_bytes)

    def tick(self) -> None:
        """Write progress.json if enough time has passed since it was last written."""
        if self._tally.clock() - self._shown >= self._record.every_s:
            self._show()

    def retry(self, block: int, reason: str) -> None:  # noqa: ARG002
        """Count a failed attempt."""
        self._tally.retries += 1

    def failure(self, block: int, reason: str) -> None:  # noqa: ARG002
        """Count a failed block."""
        self._tally.failed_blocks += 1

    def close(self) -> None:
        """Do nothing: the next step or the end of the run writes progress.json."""

    def describe(self) -> dict[str, str | int | float | None]:
        """Return the counts so far."""
        return self._tally.describe()

    def _show(self) -> None:
        self._shown = self._tally.clock()
        self._record.show()


def outcome(error: BaseException | None) -> tuple[str, int]:
    """Return the state and the exit status of a run that ended with `error` (None: success)."""
    if error is None:
        return "done", 0
    if number := signal_behind(error):
        return "interrupted", 128 + number
    return "failed", (explained(error) or (1, ""))[0]


def details(error: BaseException | None) -> list[str]:
    """Return what an error's sentence leaves out: tracebacks of workers, or its own."""
    if error is None or signal_behind(error):
        return []
    unforeseen = getattr(error, "exit_status", None) is None
    notes = [*getattr(error, "__notes__", ())]
    return [public(note) for note in (notes + [traceback_text(error)] * unforeseen)]


def public(value: Any) -> Any:
    """Return `value`, plain JSON, with possible secrets in URIs masked."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {key: public(item) for key, item in value.items()}
    return [public(item) for item in value] if isinstance(value, list | tuple) else value


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return None


def _ray_job() -> str | None:
    """Return the id for `ray job status`, else Ray's internal job id; None without Ray."""
    metadata = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}").get("metadata", {})
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    return str(metadata.get("job_submission_id") or ray.get_runtime_context().get_job_id())
