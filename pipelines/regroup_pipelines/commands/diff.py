"""Show which settings differ between two elements of one kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regroup_pipelines.commands.inspect import shortened
from regroup_pipelines.errors import DamageFoundError, UsageError
from regroup_pipelines.render.terminal import print_line, show
from regroup_store.errors import StoreError
from regroup_store.format.fingerprint import short_fingerprint
from regroup_store.format.lineage import parents
from regroup_store.format.manifests import find_location, read_manifest
from regroup_store.format.store import open_store
from regroup_store.maintenance.lookup import find_element, split_ref

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.tree import Tree

    from regroup_pipelines.configs.maintenance import DiffConfig
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.manifests import Location
    from regroup_store.format.store import Store

# Lists of equal length that differ in at most this many items are compared item by item.
FEW = 4
_ABSENT = object()


@dataclass(frozen=True)
class Difference:
    """One setting that differs between two elements.

    Attributes:
        key: its path in the inputs, such as "model.compute.dtype".
        a: its value in the first element, or `_ABSENT`.
        b: its value in the second element, or `_ABSENT`.
        because: where the setting is the fingerprint of a parent, what differs in the parents'
            own inputs.
        note: a remark, such as that a parent is missing from its store.
        damaged: whether the remark is that the parent cannot be read.
    """

    key: str
    a: Any
    b: Any
    because: tuple[Difference, ...] = ()
    note: str | None = None
    damaged: bool = False

    def unreadable(self) -> Iterator[str]:
        """Yield why parents cannot be read."""
        if self.damaged and self.note:
            yield self.note
        for other in self.because:
            yield from other.unreadable()

    def flat(self, above: tuple[str, ...] = ()) -> Iterator[JsonObject]:
        """Yield the leaves of the difference as plain JSON; absent values are left out."""
        path = (*above, self.key)
        for other in self.because:
            yield from other.flat(path)
        if not self.because:
            values = {"a": self.a, "b": self.b}
            note = {"note": self.note} if self.note else {}
            there = {name: v for name, v in values.items() if v is not _ABSENT}
            yield {"path": list(path), **there, **note}


def main(config: DiffConfig) -> JsonObject:
    """Compare two elements and print what differs.

    Raises:
        DamageFoundError: what their parents differ in cannot be read.
    """
    from rich.table import Table

    stores = (
        open_store(config.store, writable=False),
        open_store(config.store_b or config.store, writable=False),
    )
    places = _located(stores, config)
    found = tuple(compare_elements(stores, places, set()))
    names = tuple(location.folder for location in places)
    if found:
        page = Table.grid()
        page.add_row(_tree(f"A: {names[0]}\nB: {names[1]}", found))
        show(page, config.json)
    else:
        print_line(
            f"Nothing differs: both have the fingerprint {places[0].short_fingerprint}.",
            config.json,
        )
    settings = [line for difference in found for line in difference.flat()]
    summary = {"a": names[0], "b": names[1], "same": not found, "differences": settings}
    if unread := [line for difference in found for line in difference.unreadable()]:
        raise DamageFoundError(f"not compared: {'; '.join(unread)}", summary)
    return summary


def _located(stores: tuple[Store, Store], config: DiffConfig) -> tuple[Location, Location]:
    """Locate both elements; a kind that one reference states applies to the other as well."""
    kinds = [split_ref(ref)[0] for ref in (config.a, config.b)]
    first = find_element(stores[0], config.a, kinds[0] or kinds[1])
    second = find_element(stores[1], config.b, kinds[1] or first.kind)
    if first.kind != second.kind:
        raise UsageError(
            f"{config.a} is of the {first.kind} and {config.b} of the {second.kind}: only elements "
            "of one kind can be compared"
        )
    return first, second


def compare_elements(
    stores: tuple[Store, Store], places: tuple[Location, Location], seen: set[tuple[str, str]]
) -> Iterator[Difference]:
    """Yield every setting that differs between the inputs of two elements of one kind.

    A parent that cannot be read becomes a note.

    Args:
        stores: the stores of the two elements.
        places: where the two elements are.
        seen: pairs of fingerprints that were compared already; extended in place.

    Raises:
        StoreError: the manifest of one of the two elements cannot be read.
        FileNotFoundError: the manifest of one of the two elements is missing.
    """
    inputs: list[Any] = [
        read_manifest(store.backend, place)["inputs"]
        for store, place in zip(stores, places, strict=True)
    ]
    kind = places[0].kind
    named = {full: parent for each in inputs for parent, full in parents(kind, each)}
    for found in compare_settings(*inputs):
        parent = named.get(_text(found.a)) or named.get(_text(found.b))
        yield _followed(stores, parent, found, seen) if parent else found


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _followed(
    stores: tuple[Store, Store], kind: str, found: Difference, seen: set[tuple[str, str]]
) -> Difference:
    """Return a difference between two fingerprints with the settings that cause it."""
    pair = (_text(found.a), _text(found.b))
    if not all(pair):
        return found
    if pair in seen:
        return Difference(found.key, found.a, found.b, note="as above")
    seen.add(pair)
    try:
        places = [
            find_location(s.backend, kind, full) for s, full in zip(stores, pair, strict=True)
        ]
        if places[0] is None or places[1] is None:
            missing = pair[0] if places[0] is None else pair[1]
            note = f"{kind} {short_fingerprint(missing)} is not in its store, so why is not known"
            return Difference(found.key, found.a, found.b, note=note)
        because = tuple(compare_elements(stores, (places[0], places[1]), seen))
    except (StoreError, FileNotFoundError) as error:
        return Difference(found.key, found.a, found.b, note=str(error), damaged=True)
    return Difference(found.key, found.a, found.b, because)


def compare_settings(a: object, b: object, key: str = "") -> Iterator[Difference]:
    """Yield every difference between two plain JSON values, each with its path."""
    if isinstance(a, dict) and isinstance(b, dict):
        yield from _compare_members(a, b, key)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        found = [d for n, pair in enumerate(zip(a, b, strict=True)) for d in _item(key, n, pair)]
        yield from found if len(found) <= FEW else [Difference(key, a, b)]
    elif not _same(a, b):
        yield Difference(key, a, b)


def _item(key: str, number: int, pair: tuple[object, object]) -> Iterator[Difference]:
    return compare_settings(*pair, f"{key}[{number}]")


def _same(a: object, b: object) -> bool:
    # Canonical JSON, which is hashed, distinguishes 1 from 1.0 and from true.
    return type(a) is type(b) and a == b


def _compare_members(
    a: Mapping[str, object], b: Mapping[str, object], key: str
) -> Iterator[Difference]:
    for name in dict.fromkeys((*a, *b)):
        path = f"{key}.{name}" if key else name
        yield from compare_settings(a.get(name, _ABSENT), b.get(name, _ABSENT), path)


def _tree(title: str, found: tuple[Difference, ...]) -> Tree:
    from rich.tree import Tree

    tree = Tree(title, highlight=False)
    _grow(tree, found)
    return tree


def _grow(tree: Tree, found: tuple[Difference, ...]) -> None:

    for each in found:
        if each.because:
            _grow(tree.add(f"{each.key} differs because"), each.because)
        else:
            note = f" ({each.note})" if each.note else ""
            values = f"A {_shown(each.a)}, B {_shown(each.b)}{note}"
            tree.add(f"{each.key}: {values}")


def _shown(value: object) -> str:
    if isinstance(value, str) and len(value) == 64:
        return short_fingerprint(value)
    return "not given" if value is _ABSENT else shortened(value)
