"""Subsets: selections from a sample index, drawn by seed and stored as derived indexes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from heapq import nsmallest
from typing import TYPE_CHECKING

from regroup_pipelines.errors import UsageError
from regroup_pipelines.log import log
from regroup_pipelines.steps.attacking import correct_rows, draw_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regroup_pipelines.schema.attacks import Subset
    from regroup_pipelines.steps.session import Session
    from regroup_store.format.element import BlockElement
    from regroup_store.kinds.indexes import SampleIndex

Key = tuple[bytes, int]


@dataclass(frozen=True)
class DrawnSubset:
    """A subset as drawn from a dataset.

    Attributes:
        index: its samples.
        attacked: those that the network classifies correctly, which attacks run on.
        fewer: classes with fewer samples than requested, and how many they have.
    """

    index: SampleIndex
    attacked: SampleIndex
    fewer: dict[str, int]


@dataclass(frozen=True)
class SubsetRows:
    """The rows of a dataset's index that form a subset.

    Attributes:
        rows: ascending.
        fewer: as in `DrawnSubset`.
    """

    rows: list[int]
    fewer: dict[str, int]


def draw_subset(
    session: Session, name: str, subset: Subset, index: SampleIndex, features: BlockElement
) -> DrawnSubset:
    """Draw a subset and store it as the derived index `name`, in the order of `index`.

    A subset of correct samples depends on the model, so the fingerprint of `features` is part of
    its selection. Any other subset is the same for all models; its correct samples form a second
    index, `name`-correct. Memory: about 100 bytes per sample.

    Raises:
        UsageError: no sample matches.
    """
    if not subset.correct:
        return _draw_whole(session, name, subset, index, features)
    right = {row for row, _ in correct_rows(features)}
    drawn = subset_rows(subset, index, right)
    if not drawn.rows:
        raise UsageError(
            f"subset {name}: the model classifies no matching sample of {index.ref} correctly"
        )
    _log_small_classes(name, subset, drawn.fewer)
    selection = {
        "correct_under": features.fingerprint,
        "subset": subset.query,
        **features.gap_inputs(),
    }
    correct = index.derive(session.store, name, drawn.rows, selection)
    return DrawnSubset(correct, correct, drawn.fewer)


def _draw_whole(
    session: Session, name: str, subset: Subset, index: SampleIndex, features: BlockElement
) -> DrawnSubset:
    drawn = subset_rows(subset, index)
    if not drawn.rows:
        raise UsageError(f"subset {name}: {index.ref} has no matching sample")
    _log_small_classes(name, subset, drawn.fewer)
    whole = index.derive(session.store, name, drawn.rows, {"subset": subset.query})
    right = {row for row, _ in correct_rows(features)}
    rows = [row for row in drawn.rows if row in right]
    if not rows:
        raise UsageError(
            f"subset {name}: the model classifies none of its {len(drawn.rows)} samples correctly: "
            "nothing to attack"
        )
    log(f"subset {name}: {len(rows)} of its {len(drawn.rows)} samples are correct and are attacked")
    # Derived from the dataset's index, not the subset's: the clean features belong to it.
    selection = {
        "correct_under": features.fingerprint,
        "subset": subset.query,
        **features.gap_inputs(),
    }
    attacked = index.derive(session.store, f"{name}-correct", rows, selection)
    return DrawnSubset(whole, attacked, drawn.fewer)


def subset_rows(subset: Subset, index: SampleIndex, among: set[int] | None = None) -> SubsetRows:
    """Draw a subset from the rows `among` of an index; None: from all rows."""
    classes, found = chosen_classes(index.class_names, subset), _by_class(index, among, subset.seed)
    drawn = {c: nsmallest(subset.per_class or len(found[c]), found[c]) for c in classes}
    keys = [key for of_class in drawn.values() for key in of_class]
    rows = sorted(row for _, row in nsmallest(subset.limit or len(keys), keys))
    asked = subset.per_class or 0
    fewer = {index.class_names[c]: len(keys) for c, keys in drawn.items() if len(keys) < asked}
    return SubsetRows(rows, fewer)


def chosen_classes(names: Sequence[str], subset: Subset) -> list[int]:
    """Return the classes of a subset, ascending: those it names, some drawn by its seed, or all."""
    if subset.class_names is not None:
        return sorted(names.index(name) for name in subset.class_names)
    count = len(names) if subset.classes is None else subset.classes
    drawn = nsmallest(count, ((draw_key(subset.seed, name), c) for c, name in enumerate(names)))
    return sorted(c for _, c in drawn)


def _by_class(index: SampleIndex, among: set[int] | None, seed: int) -> dict[int, list[Key]]:
    """Return the draw key and the row of every sample, by class."""
    table = index.rows(columns=["sample_id", "label"])
    ids, labels = table["sample_id"].to_pylist(), table["label"].to_pylist()
    found: dict[int, list[Key]] = defaultdict(list)
    for row in range(len(ids)) if among is None else sorted(among):
        found[labels[row]].append((draw_key(seed, ids[row]), row))
    return found


def _log_small_classes(name: str, subset: Subset, fewer: dict[str, int]) -> None:
    if fewer:
        first = ", ".join(f"{each}: {count}" for each, count in [*fewer.items()][:5])
        more = ", ..." if len(fewer) > 5 else ""
        log(
            f"subset {name}: {len(fewer)} classes have fewer than {subset.per_class} "
            f"({first}{more})"
        )
