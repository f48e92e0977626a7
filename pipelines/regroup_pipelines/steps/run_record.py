"""What a run leaves in its store: `runs/<run>/progress.json` while it works, `run.json` at its end.

Nothing depends on either. A store that cannot take them fails no job: the reason is logged, once.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import secrets
import signal
import socket
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from regroup_cluster.dispatch.progress import ProgressCounts
from regroup_cluster.dispatch.stopwatch import peak_rss_bytes
from regroup_store.errors import StoreError
from regroup_store.format.environment import environment_record, git_dirty

if TYPE_CHECKING:
    from collections.abc import Callable

    from regroup_cluster.dispatch.blocks import BlockReport
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.store import Store

FOLDER = "runs"
EVERY_S, EVERY_S_REMOTE = 2.0, 15.0
# In a URI: user and password, and a query (which may hold a signature).
_SECRETS = re.compile(r"(?<=://)[^/\s@]+@|(?<=\S)\?[^\s]*(?=\s|$)")


@dataclass
class RunRecord:
    """One run of a command over one store, from its first work on.

    Attributes:
        command: such as "extract".
        options: the command's configuration, a dataclass.
        ledger: the steps done so far as plain JSON.
        log: where a store that cannot take the record is named.
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
        }
        self._how = environment_record(extra)
        del self._how["created"]

    def step(self, step: str, samples: int, skipped: int) -> StepProgress:
        """The progress that keeps progress.json up to date during one step."""
        self._step = StepProgress(self, ProgressCounts(step, samples, skipped))
        return self._step

    def show(self) -> None:
        """Write progress.json unless the last one is still being written."""
        if self._pending is None or self._pending.done():
            data = self._progress("running")
            self._pending = self._writer.submit(self._write, "progress.json", data)

    def note_memory(self, peak: int) -> None:
        """A worker's peak memory in bytes."""
        self._peak_worker = max(self._peak_worker, peak)

    def finish(self, error: BaseException | None) -> None:
        """Write the last progress.json, and run.json. `error`: what ended the run, or None."""
        state, status = outcome(error)
        self._writer.shutdown()
        self._write("progress.json", self._progress(state))
        self._write("run.json", self._record(state, status, error))

    def _progress(self, state: str) -> JsonObject:
        return {
            **self._head,
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "state": state,
            "ray_job": _ray_job(),
            "steps_done": self.ledger(),
            "step": self._step.describe() if self._step else None,
        }

    def _record(self, state: str, status: int, error: BaseException | None) -> JsonObject:
        ended, steps = datetime.now(UTC), self.ledger()
        unfinished = self._step if self._step and not self._step.whole else None
        reason = public(str(error).splitlines()[0]) if str(error or "") else None
        return {
            **self._head,
            "ended": ended.isoformat(timespec="seconds"),
            "seconds": round((ended - self._started).total_seconds(), 3),
            "state": state,
            "exit_status": status,
            "error": reason,
            "ray_job": _ray_job(),
            **self._how,
            "steps": steps,
            "unfinished_step": unfinished.describe() if unfinished else None,
            "elements": sorted({step["ref"] for step in steps if step["blocks"]}),
            "peak_rss_bytes": {"driver": peak_rss_bytes(), "workers": self._peak_worker or None},
        }

    def _write(self, name: str, content: JsonObject) -> None:
        data = json.dumps(content, indent=2, default=str).encode() + b"\n"
        try:
            self.store.backend.replace(f"{FOLDER}/{self.id}/{name}", data)
        except StoreError as error:
            if not self._complained:
                self.log(f"the run goes on without its record: {error}")
            self._complained = True


class StepProgress:
    """Told of one step's blocks by the driver; shows them in progress.json now and then.

    Attributes:
        whole: the step has done every block.
    """

    def __init__(self, record: RunRecord, tally: ProgressCounts) -> None:
        self._record, self._tally = record, tally

    @property
    def whole(self) -> bool:
        """Every block of the step is done."""
        return self._tally.blocks == self._tally.total_blocks

    def start(self, blocks: int) -> None:
        """Show that the step begins."""
        self._tally.start(blocks)
        self._show()

    def update(self, report: BlockReport) -> None:
        """Count a block."""
        self._tally.update(report)
        self._record.note_memory(report.peak_rss_bytes)

    def tick(self) -> None:
        """Show where the step is when it is time."""
        if self._tally.clock() - self._shown >= self._record.every_s:
            self._show()

    def retry(self, block: int, reason: str) -> None:  # noqa: ARG002
        """Count a failed attempt."""
        self._tally.retries += 1

    def failure(self, block: int, reason: str) -> None:  # noqa: ARG002
        """Count a block that was given up."""
        self._tally.failed_blocks += 1

    def close(self) -> None:
        """Nothing: the next step, or the run's end, shows more."""

    def describe(self) -> dict[str, str | int | float | None]:
        """The counts so far."""
        return self._tally.describe()

    def _show(self) -> None:
        self._shown = self._tally.clock()
        self._record.show()


def outcome(error: BaseException | None) -> tuple[str, int]:
    """The state in words and the exit status of a run that `error` ended (None: nothing did)."""
    # As the CLI exits. Ray may raise a SystemExit of its own in place of the handler's.
    if error is None:
        return "done", 0
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 128 + signal.SIGINT
    if isinstance(error, SystemExit):
        return "interrupted", 128 + signal.SIGTERM
    return "failed", int(getattr(error, "exit_status", 1))


def public(value: Any) -> Any:
    """`value`, plain JSON, without what may be secret in a URI."""
    if isinstance(value, str):
        return _SECRETS.sub(_mask, value) if "://" in value else value
    if isinstance(value, dict):
        return {key: public(item) for key, item in value.items()}
    return [public(item) for item in value] if isinstance(value, list | tuple) else value


def _mask(found: re.Match[str]) -> str:
    return "***@" if found[0].endswith("@") else "?***"


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return None


def _ray_job() -> str | None:
    """What `ray job status` knows the run by, or Ray's own number of it; None without Ray."""
    metadata = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}").get("metadata", {})
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    return str(metadata.get("job_submission_id") or ray.get_runtime_context().get_job_id())
