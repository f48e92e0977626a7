"""Subsets: queries over a sample index, drawn by seed and kept in the store by name."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from heapq import nsmallest
from typing import TYPE_CHECKING

from pipelines.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.declared_attacks import Subset
    from pipelines.job import Job
    from store.element import BlockElement
    from store.indexes import SampleIndex

Key = tuple[bytes, int]


@dataclass(frozen=True)
class DrawnSubset:
    """A subset's index, and how many samples there are of the classes with fewer than asked."""

    index: SampleIndex
    fewer: dict[str, int]


def draw_subset(
    job: Job, name: str, subset: Subset, index: SampleIndex, features: BlockElement
) -> DrawnSubset:
    """The derived index `name` of the samples that `subset` asks for, in the index's order.

    All are correctly classified under `features`, whose fingerprint is part of the selection: a
    subset differs from model to model. Memory: about 100 bytes a correct sample.

    Raises:
        UsageError: there is no such sample.
    """
    classes = chosen_classes(index.class_names, subset)
    found = _by_class(index, features, subset.seed)
    drawn = {c: nsmallest(subset.per_class or len(found[c]), found[c]) for c in classes}
    keys = [key for of_class in drawn.values() for key in of_class]
    rows = sorted(row for _, row in nsmallest(subset.limit or len(keys), keys))
    if not rows:
        raise UsageError(f"subset {name}: the model gets no such sample of {index.ref} right")
    asked = subset.per_class or 0
    fewer = {index.class_names[c]: len(keys) for c, keys in drawn.items() if len(keys) < asked}
    _tell(name, asked, fewer)
    selection = {
        "correct_under": features.fingerprint,
        "subset": subset.query,
        **features.gap_inputs(),
    }
    return DrawnSubset(index.derive(job.store, name, rows, selection), fewer)


def chosen_classes(names: Sequence[str], subset: Subset) -> list[int]:
    """The classes of a subset, ascending: those it names, so many drawn by its seed, or all."""
    from pipelines.attack import draw_key

    if subset.class_names is not None:
        return sorted(names.index(name) for name in subset.class_names)
    count = len(names) if subset.classes is None else subset.classes
    drawn = nsmallest(count, ((draw_key(subset.seed, name), c) for c, name in enumerate(names)))
    return sorted(c for _, c in drawn)


def _by_class(index: SampleIndex, features: BlockElement, seed: int) -> dict[int, list[Key]]:
    """Draw and row of every correctly classified sample, by the class of the index."""
    from pipelines.attack import correct_rows, draw_key

    labels = index.rows(columns=["label"])["label"].to_numpy()
    found: dict[int, list[Key]] = defaultdict(list)
    for row, sample in correct_rows(features):
        found[int(labels[row])].append((draw_key(seed, sample), row))
    return found


def _tell(name: str, asked: int, fewer: dict[str, int]) -> None:
    from pipelines.job import log

    if fewer:
        first = ", ".join(f"{each}: {count}" for each, count in [*fewer.items()][:5])
        more = ", ..." if len(fewer) > 5 else ""
        log(f"subset {name}: {len(fewer)} classes have fewer than {asked} ({first}{more})")
