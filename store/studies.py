"""Studies: what came of each, kept by name in the store that it ran in.

A name, not a fingerprint: a study that is run again, with more attacks or another k, replaces what
it said before. Everything that its numbers come from stays under its own fingerprint.
"""

import re
from collections.abc import Mapping

from store.backend import Backend
from store.errors import DamagedError, StoreUsageError
from store.fingerprint import seal, unseal
from store.stores import Store

FOLDER = "studies"
RESULTS = "results.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def write_study(store: Store, name: str, results: Mapping[str, object]) -> None:
    """Keep the results of a study, plain JSON, over those of its last run.

    Raises StoreUsageError for a name other than letters, digits, '_' and '-'.
    """
    store.backend.replace(_key(name), seal({"study": name, "results": dict(results)}))


def read_study(store: Store, name: str) -> dict[str, object]:
    """Return the results of a study; raises StoreUsageError (there are none), DamagedError."""
    where = f"{_key(name)} of the store {store.uri}"
    try:
        record = unseal(store.backend.read(_key(name)), where)
    except FileNotFoundError:
        there = ", ".join(studies(store)) or "none: run one with `regroup run`"
        raise StoreUsageError(f"{store.uri} has no study {name!r}: it has {there}") from None
    results = record.get("results")
    if record.get("study") != name or not isinstance(results, dict):
        raise DamagedError(f"{where} is damaged: it does not hold the results of {name}")
    return results


def studies(store: Store) -> list[str]:
    """Return the names of the studies whose results the store holds, sorted."""
    return sorted(name for name in store.backend.children(FOLDER) if _has(store.backend, name))


def _has(backend: Backend, name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and backend.exists(_key(name))


def _key(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StoreUsageError(f"{name!r} names no study: use letters, digits, '_' and '-'")
    return f"{FOLDER}/{name}/{RESULTS}"
