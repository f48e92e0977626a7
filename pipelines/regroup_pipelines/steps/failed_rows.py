"""Why rows of an element failed: the most frequent reasons in a sentence; all of them: an error."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regroup_pipelines.errors import IncompleteError
from regroup_pipelines.log import log
from regroup_pipelines.results.blocks import tables

if TYPE_CHECKING:
    from regroup_store.format.element import BlockElement

SHOWN_REASONS, SHOWN_LETTERS = 3, 300


@dataclass
class Reasons:
    """Why samples failed: how many for each reason, and the first of them."""

    counts: Counter[str] = field(default_factory=Counter)
    _first: dict[str, str] = field(default_factory=dict)

    def add(self, sample: str, error: str | None) -> None:
        """Count a failed sample; a reason that names its sample is the same for another one."""
        reason = " ".join((error or "no reason given").replace(sample, "...").split())
        self.counts[reason] += 1
        self._first.setdefault(reason, sample)

    def __str__(self) -> str:
        shown = [
            f"{reason[:SHOWN_LETTERS]} ({count}, the first: {self._first[reason]})"
            for reason, count in self.counts.most_common(SHOWN_REASONS)
        ]
        more = len(self.counts) - len(shown)
        return "; ".join(shown) + (f"; and {more} more reasons" if more > 0 else "")

    def refuse_all(self, step: str, rows: int) -> None:
        """Refuse to go on with nothing.

        Raises:
            IncompleteError: all of `rows` samples failed.
        """
        if rows and self.counts.total() >= rows:
            raise IncompleteError(
                f"{step}: all {rows} samples failed: {self}; remedy that, or choose another "
                "dataset, model or attack"
            )


@dataclass
class FailedRows:
    """The reasons that a command has named already: each is said once, whatever depends on it."""

    _said: set[str] = field(default_factory=set)

    def tell(self, step: str, element: BlockElement) -> None:
        """Log why rows of a finalised element failed, unless those reasons were logged before.

        Raises:
            IncompleteError: not one row is left.
        """
        if not (element.summary() or {}).get("failed"):
            return
        reasons, rows = _reasons(element), element.plan.rows
        reasons.refuse_all(step, rows)
        if not self._said.issuperset(reasons.counts):
            log(f"{step}: {reasons.counts.total()} of {rows} samples failed: {reasons}")
        self._said.update(reasons.counts)


def _reasons(element: BlockElement) -> Reasons:
    reasons = Reasons()
    for _, table in tables(element, ["sample_id", "status", "error"]):
        columns = (table[name].to_pylist() for name in ("sample_id", "status", "error"))
        for sample, status, error in zip(*columns, strict=True):
            if status == "failed":
                reasons.add(sample, error)
    return reasons
