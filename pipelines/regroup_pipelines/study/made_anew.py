"""Why a dry run plans what the store seems to have: some inputs of its elements differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regroup_store.backends.overlay import OverlayBackend
from regroup_store.format.manifests import locations, read_manifest
from regroup_store.format.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Inputs that a new release, or an edit, may change while the study stays the same; what follows
# says why. {then} and {now} are the values.
_REASONS = {
    "model.source_sha256": "the network's source was edited since",
    "model.attributes_sha256": "what the network keeps beside its weights has changed since",
    "model.stochastic": "whether the network is stochastic is declared otherwise",
    "model.weights_sha256": "the weights were replaced since",
    "attack.step_ratio": "the step ratio is {now}, and was {then}",
    "attack.kernel_version": "the attack's kernel has changed: version {now}, after {then}",
}
_PREFIXES = {
    "model.preprocessing.": "images are prepared differently ({key}: {now}, after {then})",
    "model.normalisation.": "images are normalised differently",
}
_NOT_BEFORE = "what a network of one's own computes is part of the fingerprint, and was not then"
_KINDS = ("features", "adversarials")
_OWN = frozenset({"model.source_sha256", "model.attributes_sha256"})


@dataclass(frozen=True)
class _Element:
    kind: str
    ref: str
    inputs: dict[str, object]


def reasons_anew(store: Store) -> list[str]:
    """Return a sentence for each reason why elements are planned although there are such of before.

    Args:
        store: of a dry run, over which the elements that are not there were begun in memory.
    """
    backend = store.backend
    if not isinstance(backend, OverlayBackend) or backend.below is None:
        return []
    found: dict[str, list[tuple[_Element, _Element]]] = {}
    for kind in _KINDS:
        begun = [*_elements(Store(backend.above), kind)]
        held = [*_elements(Store(backend.below), kind)] if begun else []
        for new in begun:
            for reason, old in _nearest(new, held):
                found.setdefault(reason, []).append((new, old))
    return [_sentence(reason, pairs) for reason, pairs in found.items()]


def _elements(store: Store, kind: str) -> Iterator[_Element]:
    for location in locations(store.backend, kind):
        manifest: Any = read_manifest(store.backend, location)
        yield _Element(kind, location.ref, dict(_leaves(manifest["inputs"])))


def _leaves(inputs: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Yield every input by its path, such as "model.name"."""
    for key, value in inputs.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _nearest(new: _Element, held: list[_Element]) -> Iterator[tuple[str, _Element]]:
    """Yield why `new` is not the element of before that differs in the fewest inputs, if any."""
    apart = [(sorted(_differing(new, old)), old) for old in held if old.ref != new.ref]
    known = [(keys, old) for keys, old in apart if keys and all(map(_words, keys))]
    if known:
        keys, old = min(known, key=lambda pair: len(pair[0]))
        if _OWN & set(keys) and not _OWN & set(old.inputs):
            yield _NOT_BEFORE, old
        else:
            words = (_told(key, old, new) for key in keys)
            yield " and ".join(dict.fromkeys(words)), old


def _differing(new: _Element, old: _Element) -> set[str]:
    keys = {*new.inputs, *old.inputs}
    return {key for key in keys if new.inputs.get(key) != old.inputs.get(key)}


def _words(key: str) -> str | None:
    """Return the reason of a differing input; None where that is another study's matter."""
    prefixed = (words for start, words in _PREFIXES.items() if key.startswith(start))
    return _REASONS.get(key) or next(prefixed, None)


def _told(key: str, old: _Element, new: _Element) -> str:
    values = (element.inputs.get(key) for element in (old, new))
    then, now = (f"{each:.4g}" if isinstance(each, float) else each for each in values)
    return str(_words(key)).format(key=key, then=then, now=now)


def _sentence(reason: str, pairs: list[tuple[_Element, _Element]]) -> str:
    new, old = pairs[0]
    others = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
    return (
        f"{new.kind}/{new.ref}{others} will be made anew, with all that follows from it: the store "
        f"has {old.kind}/{old.ref}, but {reason} (docs/upgrading.md)"
    )
