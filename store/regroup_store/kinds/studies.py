"""Studies: the results of each, by name, in the store where it ran.

A name instead of a fingerprint: a study that is run again, with more attacks or another k, replaces
its earlier results. All that its numbers come from stays under its own fingerprint. Timings, which
are measured instead of computed, are kept beside the results, each written once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from regroup_store.errors import DamagedError, StoreUsageError
from regroup_store.format.fingerprint import fingerprint, seal, short_fingerprint, unseal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from regroup_store.backends.base import Backend
    from regroup_store.format.store import Store

STUDIES = "studies"
RESULTS = "results.json"
TIMINGS = "timings"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# Members of results that hold the ref of an element, and its kind.
_REFS = {"bank_ref": "banks", "adversarials": "adversarials", "index": "indexes"}


def write_study(store: Store, name: str, results: Mapping[str, object]) -> None:
    """Write the results of a study, plain JSON, replacing those of its last run.

    Raises:
        StoreUsageError: the name has characters other than letters, digits, '_' and '-'.
    """
    store.backend.replace(_key(name), seal({"study": name, "results": dict(results)}))


def read_study(store: Store, name: str) -> dict[str, object]:
    """Read the results of a study.

    Raises:
        StoreUsageError: there is no such study.
        DamagedError: the results are not what was written.
    """
    where = f"{_key(name)} of the store {store.uri}"
    try:
        record = unseal(store.backend.read(_key(name)), where)
    except FileNotFoundError:
        there = ", ".join(study_names(store)) or "none: run one with `regroup run`"
        raise StoreUsageError(f"{store.uri} has no study {name!r}: it has {there}") from None
    results = record.get("results")
    if record.get("study") != name or not isinstance(results, dict):
        raise DamagedError(f"{where} is damaged: it does not hold the results of {name}")
    return results


def study_names(store: Store) -> list[str]:
    """List the studies whose results the store holds, sorted."""
    return sorted(name for name in store.backend.children(STUDIES) if _has(store.backend, name))


def timing_ref(label: str, inputs: Mapping[str, object]) -> str:
    """Reference of a timing, `<label>-<fp>`, from all that determines it, plain JSON."""
    return f"{label}-{short_fingerprint(fingerprint(inputs))}"


def write_timing(
    store: Store, study: str, ref: str, inputs: Mapping[str, object], found: Mapping[str, object]
) -> bool:
    """Write a timing, plain JSON; False where one exists already, which stays.

    The seconds themselves are no function of `inputs`: measured again they differ.

    Args:
        store: where to write.
        study: the name of the study.
        ref: from `timing_ref`.
        inputs: what was timed.
        found: what was measured.
    """
    record = {"study": study, "inputs": dict(inputs), "found": dict(found)}
    return store.backend.create(_timing_key(study, ref), seal(record))


def read_timing(
    store: Store, study: str, ref: str, inputs: Mapping[str, object]
) -> dict[str, object] | None:
    """Read a timing, or None where there is none.

    Raises:
        DamagedError: the timing is not what was written, or has other `inputs`.
    """
    key = _timing_key(study, ref)
    where = f"{key} of the store {store.uri}"
    try:
        record = unseal(store.backend.read(key), where)
    except FileNotFoundError:
        return None
    found = record.get("found")
    if fingerprint({"inputs": record.get("inputs")}) != fingerprint({"inputs": dict(inputs)}):
        raise DamagedError(f"{where} is damaged: it is a timing of something else")
    if not isinstance(found, dict):
        raise DamagedError(f"{where} is damaged: it holds no timing")
    return found


def require_timing(store: Store, study: str, file: str, key: str) -> None:
    """Check a stored timing.

    Raises:
        DamagedError: it is not what was written, or that of another study, or of other inputs than
            its name `file` says.
        FileNotFoundError: there is none.
    """
    where = f"{key} of the store {store.uri}"
    record = unseal(store.backend.read(key), where)
    inputs, label = record.get("inputs"), file.removesuffix(".json").rpartition("-")[0]
    own = isinstance(inputs, dict) and f"{timing_ref(label, inputs)}.json" == file
    if not own or record.get("study") != study or not isinstance(record.get("found"), dict):
        raise DamagedError(f"{where} is damaged: it is a timing of something else")


def discard_timing(store: Store, study: str, ref: str) -> None:
    """Remove a damaged timing, so that it is measured again."""
    store.backend.delete(_timing_key(study, ref))


def is_study_name(name: str) -> bool:
    """Whether `name` can name a study, and so become a part of a file's name."""
    return bool(_NAME.fullmatch(name))


def named_elements(results: object) -> Iterator[tuple[str, str]]:
    """Yield (kind, ref) of every element that a study's results name, without duplicates."""
    yield from dict.fromkeys(_named(results))


def _named(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for item in value:
            yield from _named(item)
    for key, item in value.items() if isinstance(value, dict) else ():
        if key == "votes" and isinstance(item, dict):
            yield from (("votes", ref) for ref in item.values() if isinstance(ref, str))
        elif key in _REFS and isinstance(item, str):
            yield _REFS[key], item
        else:
            yield from _named(item)


def _timing_key(study: str, ref: str) -> str:
    if not _NAME.fullmatch(ref):
        raise StoreUsageError(f"{ref!r} names no timing: use letters, digits, '_' and '-'")
    return f"{_key(study).removesuffix(RESULTS)}{TIMINGS}/{ref}.json"


def _has(backend: Backend, name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and backend.exists(_key(name))


def _key(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StoreUsageError(f"{name!r} names no study: use letters, digits, '_' and '-'")
    return f"{STUDIES}/{name}/{RESULTS}"
