"""Collect garbage: list or remove the elements that no study and no --keep refers to."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from regroup_pipelines.errors import UsageError
from regroup_pipelines.log import log
from regroup_pipelines.render.formatting import human_size
from regroup_pipelines.render.terminal import print_line, show
from regroup_pipelines.steps.past_runs import past_runs, unfinished_refs
from regroup_store.errors import StoreError, StoreUsageError
from regroup_store.format.store import open_store
from regroup_store.kinds.studies import study_names
from regroup_store.maintenance.lookup import find_elements
from regroup_store.maintenance.removal import plan_removal, remove

if TYPE_CHECKING:
    from rich.table import Table

    from regroup_pipelines.configs.maintenance import GcConfig
    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.steps.past_runs import PastRun
    from regroup_store.format.manifests import Location
    from regroup_store.format.store import Store
    from regroup_store.maintenance.removal import Member, RemovalPlan


class RemovalRefusedError(Exception):
    """Nothing may be removed from the store in its present state (exit status 1)."""

    exit_status = 1


class RemovalFailedError(Exception):
    """An element could not be removed (exit status 1).

    Attributes:
        summary: the elements that were removed before, for --json.
    """

    exit_status = 1

    def __init__(self, message: str, summary: JsonObject) -> None:
        super().__init__(message)
        self.summary = summary


def main(config: GcConfig) -> JsonObject:
    """List, and with --delete remove, the elements that nothing refers to."""
    if config.delete and not config.yes and (config.json or not sys.stdin.isatty()):
        raise UsageError("--delete asks for confirmation: give --yes where nobody can answer")
    store = open_store(config.store, writable=config.delete)
    plan = _plan(store, config)
    if config.delete:
        _refuse(store, config, plan)
    sizes = {m.location: store.backend.size(m.location.folder) for m in plan.unreferenced}
    if plan.unreferenced:
        show(_table(plan.unreferenced, sizes, config.store), config.json)
    for line in _sentences(store, plan, sum(sizes.values())):
        print_line(line, config.json)
    deleted = _delete(store, config, plan, sum(sizes.values()))
    return _summary(config, plan, sizes, deleted)


def _plan(store: Store, config: GcConfig) -> RemovalPlan:
    keep = [location for ref in config.keep for location in _kept(store, ref)]
    begun = unfinished_refs(past_runs(store))
    return plan_removal(store, keep, begun, unfinished=config.unfinished)


def _kept(store: Store, ref: str) -> list[Location]:
    """Find the elements that a --keep names.

    Raises:
        UsageError: there are none, so that the name may be misspelt.
    """
    try:
        return find_elements(store, ref)
    except StoreUsageError as error:
        raise UsageError(f"--keep {ref}: {error}") from error


def _running(store: Store) -> PastRun | None:
    now = datetime.now(UTC)
    return next((run for run in past_runs(store) if run.in_progress(now)), None)


def _refuse(store: Store, config: GcConfig, plan: RemovalPlan) -> None:
    """Refuse to remove anything where that could lose results.

    Raises:
        RemovalRefusedError: a run is in progress, or the origin of an element is unknown.
        UsageError: neither a study nor a --keep says what to keep.
    """
    if run := _running(store):
        raise RemovalRefusedError(
            f"the run {run.id} is in progress: wait until it ends, or, if it was killed, remove "
            f"runs/{run.id} from the store"
        )
    for member in plan.unknown:
        raise RemovalRefusedError(
            f"the origin of {member.location.folder} is unknown ({member.problem}): repair it "
            "first, or remove its folder"
        )
    if plan.unreferenced and not config.keep and not study_names(store):
        raise UsageError(
            f"{config.store} has no results of a study and no --keep is given: everything listed "
            "by `regroup gc` would be removed; name what to keep with --keep REF"
        )


def _table(members: tuple[Member, ...], sizes: dict[Any, int], title: str) -> Table:
    from rich.table import Table

    table = Table(title=f"Unreferenced elements of {title}")
    for head in ("kind", "name and fingerprint", "state", "created", "size"):
        table.add_column(head, justify="right" if head == "size" else "left")
    for member in members:
        created = (member.created or "-").replace("T", " ")[:16]
        location = member.location
        size = human_size(sizes[location])
        table.add_row(location.kind, location.ref, member.state, created, size)
    return table


def _sentences(store: Store, plan: RemovalPlan, size: int) -> list[str]:
    """Describe in sentences what was found."""
    found = f"{_elements(len(plan.unreferenced))} ({human_size(size)})"
    lines = [f"{found} that nothing refers to; {len(plan.kept)} kept."]
    if plan.unfinished:
        lines.append(
            f"Kept only for unfinished work: {_elements(len(plan.unfinished))} (--unfinished "
            "lists them too)."
        )
    lines += [f"Kept because unreadable: {m.location.folder}: {m.problem}" for m in plan.unknown]
    if run := _running(store):
        lines.append(f"The run {run.id} is in progress: --delete is refused until it ends.")
    return lines


def _elements(count: int) -> str:
    return "1 element" if count == 1 else f"{count} elements"


def _delete(store: Store, config: GcConfig, plan: RemovalPlan, size: int) -> list[str]:
    """Remove the listed elements where --delete is given; return the folders removed."""
    if not plan.unreferenced:
        return []
    if not config.delete:
        print_line("Nothing was removed: give --delete to remove.", config.json)
        return []
    if not config.yes and not _confirmed(len(plan.unreferenced), size):
        print_line("Nothing was removed.", config.json)
        return []
    if not config.yes:  # The question may have stood for hours.
        again = _plan(store, config)
        _refuse(store, config, again)
        plan = _both(plan, again)
    gone = _removed(store, plan)
    print_line(f"Removed: {_elements(len(gone))}.", config.json)
    return gone


def _confirmed(count: int, size: int) -> bool:
    try:
        answer = input(f"Remove {_elements(count)} ({human_size(size)}) permanently? [y/N] ")
    except EOFError:  # Ctrl-D
        print()
        return False
    return answer.strip().lower() in ("y", "yes")


def _both(plan: RemovalPlan, again: RemovalPlan) -> RemovalPlan:
    from dataclasses import replace

    still = {member.location for member in again.unreferenced}
    left = tuple(member for member in plan.unreferenced if member.location in still)
    return replace(again, unreferenced=left)


def _removed(store: Store, plan: RemovalPlan) -> list[str]:
    gone: list[str] = []
    for member in plan.unreferenced:
        try:
            remove(store, member)
        except StoreError as error:
            raise RemovalFailedError(
                f"{error}; removed so far: {_elements(len(gone))} of {len(plan.unreferenced)}; run "
                "the same command again to continue",
                {"deleted": gone},
            ) from error
        gone.append(member.location.folder)
        log(f"gc: removed {member.location.folder}")
    return gone


def _summary(
    config: GcConfig, plan: RemovalPlan, sizes: dict[Any, int], deleted: list[str]
) -> JsonObject:
    return {
        "store": config.store,
        "unreferenced": [
            {
                "kind": member.location.kind,
                "ref": member.location.ref,
                "state": member.state,
                "created": member.created,
                "size_bytes": sizes[member.location],
            }
            for member in plan.unreferenced
        ],
        "size_bytes": sum(sizes.values()),
        "kept": [member.location.folder for member in plan.kept],
        "unfinished": [member.location.folder for member in plan.unfinished],
        "unreadable": [member.location.folder for member in plan.unknown],
        "deleted": deleted,
    }
