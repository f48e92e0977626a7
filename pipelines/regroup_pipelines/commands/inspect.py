"""Show an element: its manifest, what it was made from, and what was made from it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from regroup_cluster.printable import printable
from regroup_pipelines.render.element_state import reasons, refuse_unreadable, state_of
from regroup_pipelines.render.formatting import human_size
from regroup_pipelines.render.terminal import show
from regroup_store.format.fingerprint import short_fingerprint
from regroup_store.format.lineage import ancestors, descendants
from regroup_store.format.manifests import read_manifest
from regroup_store.format.store import open_store
from regroup_store.maintenance.lookup import find_element

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.tree import Tree

    from regroup_pipelines.configs.maintenance import InspectConfig
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.lineage import Relative
    from regroup_store.format.manifests import Location
    from regroup_store.format.store import Store

# Items shown of a long list.
_SHOWN = 4


def main(config: InspectConfig) -> JsonObject:
    """Print one element.

    Raises:
        DamageFoundError: its children were asked for, and some element cannot be read.
    """
    from rich.console import Group
    from rich.table import Table

    store = open_store(config.store, writable=False)
    location = find_element(store, config.ref)
    manifest: Any = read_manifest(store.backend, location)
    parents = ancestors(store, location)
    children = descendants(store, location) if config.children else ()
    families = [("made from", parents), *([("used by", children)] if config.children else [])]
    page = Table.grid()
    trees = [_relatives(head, found) for head, found in families]
    page.add_row(Group(_facts(store, location, manifest), *trees))
    show(page, config.json)
    summary = {
        **asdict(store.info(location)),
        "manifest": manifest,
        "parents": [_plain(each) for each in parents],
        **({"children": [_plain(each) for each in children]} if config.children else {}),
    }
    if config.children:
        # What they come from is unknown: one of them may be a child.
        refuse_unreadable(store.elements(), summary=summary)
    return summary


def _facts(store: Store, location: Location, manifest: Mapping[str, Any]) -> Tree:
    """Return a tree of the manifest and the state of the element."""
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(printable(location.folder), "bold"), highlight=False)
    for line in _state_lines(store, location, manifest):
        tree.add(line)
    _grow(tree.add("inputs (hashed)"), manifest["inputs"])
    recorded = manifest.get("recorded") or {}
    _grow(tree.add("recorded"), {k: v for k, v in recorded.items() if v not in ({}, None)})
    return tree


def _state_lines(store: Store, location: Location, manifest: Mapping[str, Any]) -> Iterator[str]:
    info = store.info(location)
    yield f"kind: {location.kind}"
    yield f"name: {location.name}"
    yield f"fingerprint: {manifest['fingerprint']}"
    yield f"schema version: {manifest['schema_version']}"
    blocks = f" in blocks of {manifest['block_rows']}" if "block_rows" in manifest else ""
    yield f"rows: {info.rows}{blocks}"
    yield f"blocks committed: {info.blocks_committed} of {info.blocks_planned}"
    yield f"state: {state_of(info)}"
    yield from (f"failed: {line}" for line in reasons([info]))
    yield f"size: {human_size(info.size_bytes)}"
    if "source_spec" in manifest:
        yield f"images: {manifest['source_spec']}"


def _grow(tree: Tree, value: Mapping[str, Any]) -> None:
    """Add a JSON object to a tree, one branch per member."""
    for key, item in value.items():
        if isinstance(item, dict) and item:
            _grow(tree.add(f"{key}"), item)
        else:
            tree.add(f"{key}: {shortened(item)}")


def shortened(value: object) -> str:
    """Format a manifest's value in one line; a long list by its first and last items and length."""
    if not isinstance(value, list):
        return "none" if value is None else str(value)
    texts = [shortened(item) for item in value]
    if len(texts) > _SHOWN + 1:
        texts = [*texts[: _SHOWN - 1], "...", texts[-1]]
        return f"[{', '.join(texts)}] ({len(value)} items)"
    return f"[{', '.join(texts)}]"


def _relatives(head: str, found: Sequence[Relative]) -> Tree:
    from rich.tree import Tree

    tree = Tree(head if found else f"{head}: nothing", highlight=False)
    _add(tree, found, set())
    return tree


def _add(tree: Tree, found: Sequence[Relative], seen: set[tuple[str, str]]) -> None:
    """Add relatives and their relatives to a tree; repeated ones are not expanded again."""
    for each in found:
        ref = each.location.ref if each.location else short_fingerprint(each.fingerprint)
        key = (each.kind, each.fingerprint)
        again = each.relatives and key in seen
        note = f" ({each.problem})" if each.problem else " (as above)" if again else ""
        branch = tree.add(f"{each.kind}/{ref}{note}")
        if not again:
            seen.add(key)
            _add(branch, each.relatives, seen)


def _plain(each: Relative) -> JsonObject:
    return {
        "kind": each.kind,
        "fingerprint": each.fingerprint,
        "ref": each.location.ref if each.location else None,
        "problem": each.problem,
        "relatives": [_plain(other) for other in each.relatives],
    }
