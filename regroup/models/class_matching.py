"""Match two lists of class names: exact names first, looser ones only where they are unambiguous.

A class may be called in several ways: `n01440764`, `n01440764-tench`, `tench, Tinca tinca`,
`Tench`. What ImageNet's wnids mean in English is known (`imagenet.imagenet_synonyms`).
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from regroup.models.imagenet import IMAGENET_CLASSES, imagenet_synonyms, imagenet_wnids

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WNID = re.compile(r"(n\d{8})(?:[\s,_:.-]+(.*))?", re.DOTALL)
_SEPARATORS = re.compile(r"[\s_\-.,()/]+")
_APOSTROPHES = re.compile("['\u2018\u2019`]")
# Of a list of 1000 names, so many must be ImageNet's, each in its place, to be all of them.
_ALIGNED = 900


@dataclass(frozen=True)
class NameMatch:
    """Where each name of a list is among known names.

    Attributes:
        positions: of each name, None where it has no place, or no certain one.
        doubtful: positions that a name without a certain place could have: several, or one that
            another name has as well.
    """

    positions: tuple[int | None, ...]
    doubtful: dict[int, tuple[int, ...]]

    @property
    def unmatched(self) -> list[int]:
        """Numbers of the names without a certain place."""
        return [number for number, place in enumerate(self.positions) if place is None]


@cache
def match_names(names: tuple[str, ...], known: tuple[str, ...]) -> NameMatch:
    """Find every name among `known`; no two names get one place.

    In this order, each step for the names that the earlier ones left: equal strings and wnids;
    equal Unicode; the first of several English names (`tench` of "tench, Tinca tinca"); the same
    but for case and separators; any of several English names. A name with several candidates, or
    whose candidate another name claims, stays without a place, and no later step is tried for it.
    """
    if names == known:  # repeated names too
        return NameMatch(tuple(range(len(names))), {})
    return _match(_named(names), _named(known))


@dataclass(frozen=True)
class _Named:
    """A class by its own name and by others.

    Attributes:
        text: as given.
        wnid: of it, or "".
        own: its name, without a leading wnid; "" where it is a wnid alone.
        others: its English names, where there are several, the usual one first.
    """

    text: str
    wnid: str
    own: str
    others: tuple[str, ...]

    def keys(self, step: int) -> tuple[set[str], set[str]]:
        """Return what a step compares: its own name, and its other names."""
        if step == 0:
            return {self.text, self.wnid} - {""}, set()
        if step == 1:
            return {self.own} - {""}, set()
        others = self.others if step == _STEPS - 1 else self.others[:2]
        if step == 2:
            return {self.own} - {""}, set(others)
        return {folded(self.own)} - {""}, {folded(name) for name in others}


_STEPS = 5


def folded(name: str) -> str:
    """Return a name without its case and separators; one without letters stays as it is."""
    text = unicodedata.normalize("NFKC", name).strip()
    if not any(letter.isalpha() for letter in text):
        return text
    return _SEPARATORS.sub(" ", _APOSTROPHES.sub("", text.casefold())).strip() or text


def _named(names: tuple[str, ...]) -> list[_Named]:
    entries = [_entry(name) for name in names]
    if not in_imagenets_order(names):
        return entries
    return [
        _Named(entry.text, wnid, entry.own, _english(wnid))
        for entry, wnid in zip(entries, imagenet_wnids(), strict=True)
    ]


@cache
def in_imagenets_order(names: tuple[str, ...]) -> bool:
    """Whether these are the names of ImageNet's 1000 classes, in whatever form, in its order.

    A few may be unknown or repeated, as "crane" is in some lists; none may have another place.
    """
    if len(names) != IMAGENET_CLASSES:
        return False
    places = _match([_entry(name) for name in names], [_entry(w) for w in imagenet_wnids()])
    certain = [(at, place) for at, place in enumerate(places.positions) if place is not None]
    return len(certain) >= _ALIGNED and all(at == place for at, place in certain)


def _entry(name: str) -> _Named:
    text = unicodedata.normalize("NFC", name).strip()
    found = _WNID.fullmatch(text)
    wnid, own = (found[1], (found[2] or "").strip()) if found else ("", text)
    several = tuple(part.strip() for part in own.split(",") if part.strip())
    others = (several[0], own, *several[1:]) if len(several) > 1 else ()
    return _Named(name, wnid, own, _english(wnid) or others)


def _english(wnid: str) -> tuple[str, ...]:
    """Return the English names of one of ImageNet's classes: the usual one, all, the others."""
    place = _places().get(wnid)
    if place is None:
        return ()
    first, *others = imagenet_synonyms()[place]
    return (first, ", ".join((first, *others)), *others)


@cache
def _places() -> dict[str, int]:
    return {wnid: place for place, wnid in enumerate(imagenet_wnids())}


def _match(ours: Sequence[_Named], theirs: Sequence[_Named]) -> NameMatch:
    positions: list[int | None] = [None] * len(ours)
    doubtful: dict[int, tuple[int, ...]] = {}
    taken: set[int] = set()
    for step in range(_STEPS):
        claims: dict[int, list[int]] = defaultdict(list)
        for number, places in _candidates(ours, theirs, step):
            if positions[number] is not None or number in doubtful:
                continue
            if len(places) > 1:
                doubtful[number] = tuple(sorted(places))
            else:
                claims[places.pop()].append(number)
        for place, claimants in claims.items():
            if len(claimants) > 1 or place in taken:
                doubtful |= dict.fromkeys(claimants, (place,))
            else:
                positions[claimants[0]] = place
        taken |= claims.keys()
    return NameMatch(tuple(positions), doubtful)


def _candidates(
    ours: Sequence[_Named], theirs: Sequence[_Named], step: int
) -> Iterator[tuple[int, set[int]]]:
    """Yield the places that a step finds for each name, where it finds some."""
    by_own: dict[str, set[int]] = defaultdict(set)
    by_other: dict[str, set[int]] = defaultdict(set)
    for place, entry in enumerate(theirs):
        own, others = entry.keys(step)
        for keys, holders in ((own, by_own), (own | others, by_other)):
            for key in keys:
                holders[key].add(place)
    for number, entry in enumerate(ours):
        own, others = entry.keys(step)
        found = {place for key in own for place in by_other[key]}
        found |= {place for key in others for place in by_own[key]}
        # Two wnids that differ are two classes, whatever their English names.
        places = {p for p in found if not entry.wnid or theirs[p].wnid in ("", entry.wnid)}
        if places:
            yield number, places
