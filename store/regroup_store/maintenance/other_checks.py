"""Verification of what is no element: studies, timings, records of runs, links, and strays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_store.errors import DamagedError, StoreError
from regroup_store.format.fingerprint import parse_record, unseal_if_sealed
from regroup_store.format.manifests import folders
from regroup_store.kinds.studies import (
    RESULTS,
    STUDIES,
    TIMINGS,
    is_study_name,
    named_elements,
    read_study,
    require_timing,
)
from regroup_store.maintenance.findings import Finding, describe_error, level_of_error
from regroup_store.maintenance.strays import check_strays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regroup_store.backends.base import Backend
    from regroup_store.format.store import Store
    from regroup_store.maintenance.findings import What

RUNS = "runs"
# Without these two a study's numbers cannot be read again; the others are only its origin.
NEEDED = ("votes", "banks")


def check_others(store: Store) -> Iterator[Finding]:
    """Check everything that is no element."""
    backend = store.backend
    for name in filter(is_study_name, backend.children(STUDIES)):
        yield from _check_study(store, name)
    yield from _check_runs(backend)
    yield from check_strays(backend)
    for key in backend.links():
        problem = f"{key} is a link: never followed; put what it points to in its place"
        yield Finding("unreadable", "link", "", "", None, key, problem)


def _check_study(store: Store, name: str) -> Iterator[Finding]:
    results = f"{STUDIES}/{name}/{RESULTS}"
    yield from _error("results", STUDIES, name, results, lambda: _read_results(store, name))
    yield from _gone(store, name, results)
    folder = f"{STUDIES}/{name}/{TIMINGS}"
    for file in store.backend.children(folder):
        key = f"{folder}/{file}"
        if file.endswith(".json"):
            read = lambda key=key, file=file: require_timing(store, name, file, key)  # noqa: E731
            yield from _error("timing", STUDIES, name, key, read)


def _read_results(store: Store, name: str) -> None:
    if store.backend.exists(f"{STUDIES}/{name}/{RESULTS}"):
        read_study(store, name)


def _error(
    what: What, kind: str, ref: str, key: str, read: Callable[[], object]
) -> Iterator[Finding]:
    try:
        read()
    except (StoreError, FileNotFoundError) as error:
        yield Finding(level_of_error(error), what, kind, ref, None, key, describe_error(error, key))


def _gone(store: Store, name: str, key: str) -> Iterator[Finding]:
    """Elements that the results name and the store no longer has."""
    try:
        results = read_study(store, name)
    except (StoreError, FileNotFoundError):
        return  # a finding of its own, or no results yet
    for kind, ref in named_elements(results):
        if ref not in {each.ref for each in folders(store.backend, kind)}:
            needed = kind in NEEDED
            problem = f"{key} names {kind}/{ref}, which are gone: the study's next run makes them"
            level = "damaged" if needed else "note"
            yield Finding(level, "parent", STUDIES, name, None, key, problem)  # type: ignore[arg-type]


def _check_runs(backend: Backend) -> Iterator[Finding]:
    """Check the records of runs; those of before they were sealed are only parsed."""
    unsealed = []
    for name in backend.children(RUNS):
        for file in ("progress.json", "run.json"):
            key = f"{RUNS}/{name}/{file}"
            try:
                if not require_run_record(backend.read(key), key):
                    unsealed.append(key)
            except FileNotFoundError:
                continue
            except StoreError as error:
                yield Finding(level_of_error(error), "run", RUNS, name, None, key, str(error))
    if unsealed:
        problem = f"{len(unsealed)} records of runs have no checksum (made before there was one)"
        yield Finding("note", "run", "", "", None, unsealed[0], problem)


def require_run_record(data: bytes, where: str) -> bool:
    """Check the record of a run, and return whether it has a checksum.

    Raises:
        DamagedError: it is not a JSON object, or not what its checksum says.
    """
    record = unseal_if_sealed(data, where)
    if not isinstance(record.get("state"), str):
        raise DamagedError(f"{where} is damaged: it is not the record of a run")
    return "checksum" in parse_record(data, where)
