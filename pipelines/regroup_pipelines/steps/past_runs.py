"""Recorded runs of a store: which is in progress, and which left elements unfinished."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from regroup_pipelines.steps.driver_process import is_gone
from regroup_pipelines.steps.run_record import FOLDER
from regroup_store.errors import DamagedError
from regroup_store.format.fingerprint import unseal_if_sealed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from regroup_store.format.store import Store

# A driver updates progress.json every few seconds while blocks are processed, but not while it
# lists a large dataset or summarises a large element.
RECENT = timedelta(hours=1)
# A driver that has a heartbeat is dead after so many of them were left out.
MISSED_BEATS = 10


@dataclass(frozen=True)
class PastRun:
    """One recorded run.

    Attributes:
        id: begins with the time at which the run started.
        state: as in its record, or "unreadable".
        updated: when its record was last written, or None.
        refs: the elements that its steps made or found.
        recent: how old `updated` may be while the run is active.
        gone: whether its process is known to have ended.
    """

    id: str
    state: str
    updated: datetime | None
    refs: frozenset[str]
    recent: timedelta = RECENT
    gone: bool = False

    def in_progress(self, now: datetime) -> bool:
        """Return whether the run may still be active: not recorded as ended, and updated lately."""
        if self.gone or self.state not in ("running", "unreadable"):
            return False
        return now - (self.updated or now) < self.recent


def past_runs(store: Store) -> list[PastRun]:
    """Return every run that left a record, oldest first."""
    return [run for name in store.backend.children(FOLDER) for run in _run(store, name)]


def _run(store: Store, name: str) -> Iterator[PastRun]:
    for file in ("run.json", "progress.json"):
        key = f"{FOLDER}/{name}/{file}"
        try:
            record = unseal_if_sealed(store.backend.read(key), key)
        except FileNotFoundError:
            continue
        except DamagedError:
            yield PastRun(name, "unreadable", None, frozenset())
            return
        yield PastRun(
            name,
            str(record.get("state")),
            _updated(record),
            frozenset(_refs(record)),
            _recent(record),
            is_gone(record.get("process")),
        )
        return


def _recent(record: Mapping[str, object]) -> timedelta:
    beat = record.get("heartbeat_s")
    return MISSED_BEATS * timedelta(seconds=beat) if isinstance(beat, float | int) else RECENT


def _updated(record: Mapping[str, object]) -> datetime | None:
    try:
        updated = datetime.fromisoformat(str(record.get("updated", record.get("ended"))))
    except ValueError:
        return None
    return updated if updated.tzinfo else updated.replace(tzinfo=UTC)


def _refs(record: Mapping[str, Any]) -> Iterator[str]:
    steps = record.get("steps") or record.get("steps_done")
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, dict) and isinstance(step.get("ref"), str):
            yield step["ref"]


def unfinished_refs(runs: list[PastRun]) -> set[str]:
    """Return the elements of runs that did not finish, unless a later finished run covers them."""
    done = [run for run in runs if run.state == "done"]
    return {
        ref
        for run in runs
        if run.state != "done" and not any(_supersedes(other, run) for other in done)
        for ref in run.refs
    }


def _supersedes(later: PastRun, run: PastRun) -> bool:
    return later.id > run.id and later.refs >= run.refs
