"""Files in a store that belong to nothing: told, so that nobody takes them for a part of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from regroup_store.errors import StoreError
from regroup_store.format.manifests import KINDS, ROW_KINDS, Location, folders, read_manifest
from regroup_store.format.store import MARKER
from regroup_store.kinds.studies import RESULTS, STUDIES, TIMINGS
from regroup_store.maintenance.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from regroup_store.backends.base import Backend

_STUDY = rf"{STUDIES}/[A-Za-z0-9][A-Za-z0-9_-]*/({RESULTS}|{TIMINGS}/[^/]+-[0-9a-f]{{16}}\.json)"
_RUN = r"runs/[^/]+/(progress|run)\.json"
# Weights that `regroup train-demo-model` keeps: a network is described by their hash.
_WEIGHTS = r"weights/[^/]+"
_OTHERS = re.compile(f"{re.escape(MARKER)}|{_STUDY}|{_RUN}|{_WEIGHTS}")
_ZARR = re.compile(r"([^/]+\.zarr(?:/(?!c/)[^/]+)?)/(?:zarr\.json|c/(\d+)(?:/\d+)*)")
_ROWS = re.compile(r"manifest\.json|part-\d{5,}\.parquet")
_BLOCKS = re.compile(
    r"manifest\.json|summary\.json|removal\.json|lock|checkpoints/\d{5,}/[^/]+"
    r"|(?:commits|quarantine)/(\d{5,})\.json|samples/part-(\d{5,})\.parquet"
)


def check_strays(backend: Backend) -> Iterator[Finding]:
    """Note the files that no reader reads, one finding for each folder of a kind."""
    strays: dict[str, list[str]] = {}
    for key in _strays(backend):
        strays.setdefault("/".join(key.split("/")[:2]), []).append(key)
    for place, keys in strays.items():
        rest = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        problem = f"{keys[0]}{rest} in {place}: not part of the store, nothing reads it"
        yield Finding("note", "stray", "", "", None, keys[0], problem)


def _strays(backend: Backend) -> Iterator[str]:
    elements = {each.folder: each for kind in KINDS for each in folders(backend, kind)}
    links, known = set(backend.links()), dict[str, Any]()
    for key in backend.keys(""):
        folder = "/".join(key.split("/")[:2])
        location = elements.get(folder)
        if key in links or _OTHERS.fullmatch(key):
            continue
        if location is None:
            yield key
            continue
        if folder not in known:
            known[folder] = _manifest(backend, location)
        if not _belongs(location, known[folder], key.removeprefix(f"{folder}/")):
            yield key


def _manifest(backend: Backend, location: Location) -> Mapping[str, Any] | None:
    try:
        return read_manifest(backend, location)
    except (StoreError, FileNotFoundError):
        return None


def _belongs(location: Location, manifest: Mapping[str, Any] | None, name: str) -> bool:
    if location.kind in ROW_KINDS:
        return bool(_ROWS.fullmatch(name))
    blocks = _block_count(location, manifest)
    if match := _ZARR.fullmatch(name):
        arrays = None if manifest is None else {each["path"] for each in manifest["arrays"]}
        path, chunk = match.groups()
        if chunk is None:
            return arrays is None or any(f"{each}/".startswith(f"{path}/") for each in arrays)
        return (arrays is None or path in arrays) and (blocks is None or int(chunk) < blocks)
    if location.kind == "banks":
        return name == "manifest.json"
    if not (match := _BLOCKS.fullmatch(name)):
        return False
    number = match[1] or match[2]
    return number is None or blocks is None or int(number) < blocks


def _block_count(location: Location, manifest: Mapping[str, Any] | None) -> int | None:
    """Blocks of an element, or signs of a bank; None where its manifest cannot be read."""
    if manifest is None:
        return None
    if location.kind == "banks":
        return 2
    return -(-int(manifest["rows"]) // int(manifest["block_rows"]))
