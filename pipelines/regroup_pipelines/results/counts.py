"""Counts over stored votes, from which every accuracy is computed.

Needs NumPy and the store only: no network, no Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from regroup_pipelines.results.base import Record
from regroup_store.errors import DamagedError
from regroup_store.kinds.votes import SIGN_CHOICES, TAP_TRUE_RANK, TRUE_RANK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.element import BlockElement

_COLUMNS = ["sample_id", "status", "label", "prediction", "top5_correct", "success"]


_Count = Annotated[int, Field(ge=0)]


class SignCounts(Record):
    """Correct samples by sign choice: one count per k from 1, or one per tap."""

    both: tuple[_Count, ...]
    positive: tuple[_Count, ...]
    negative: tuple[_Count, ...]

    def of(self, signs: str) -> tuple[int, ...]:
        """Return the counts of one sign choice."""
        found: tuple[int, ...] = getattr(self, signs)
        return found

    def __add__(self, other: SignCounts) -> SignCounts:
        sums = ((s, zip(self.of(s), other.of(s), strict=True)) for s in SIGN_CHOICES)
        return SignCounts(**{signs: tuple(map(sum, pairs)) for signs, pairs in sums})


class GroupCounts(Record):
    """Counts over one group of samples.

    Attributes:
        n: samples in the group.
        softmax_top1: samples that softmax classifies correctly.
        softmax_top5: samples whose true class is among softmax's best five.
        top1: samples that REGroup classifies correctly, for every k from 1.
        top5: samples whose true class is among REGroup's best five, for every k from 1.
        tap_top1: the same as `top1` for every tap alone, in execution order.
        tap_top5: the same as `top5` for every tap alone, in execution order.
    """

    n: _Count
    softmax_top1: _Count
    softmax_top5: _Count
    top1: SignCounts
    top5: SignCounts
    tap_top1: SignCounts
    tap_top5: SignCounts

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        choices = (self.top1, self.top5, self.tap_top1, self.tap_top5)
        hits = (count for each in choices for signs in SIGN_CHOICES for count in each.of(signs))
        if max(self.softmax_top1, self.softmax_top5, *hits, 0) > self.n:
            raise ValueError(f"more than {self.n} of {self.n} samples are right")
        return self

    def __add__(self, other: GroupCounts) -> GroupCounts:
        names = GroupCounts.model_fields
        return GroupCounts(**{name: getattr(self, name) + getattr(other, name) for name in names})


class VoteSummary(Record):
    """The summary of a votes element: counts over every group of samples that tables need.

    Attributes:
        failed: rows without votes.
        attacked: whether the samples were attacked.
        all: over the readable samples.
        success: over S, the samples whose attack succeeded.
        correct: over the samples that softmax classifies correctly.
        missing_blocks: blocks that the element was finalised without.
    """

    failed: _Count
    attacked: bool
    all: GroupCounts
    success: GroupCounts
    correct: GroupCounts
    missing_blocks: tuple[int, ...] = ()

    def __add__(self, other: VoteSummary) -> VoteSummary:
        return VoteSummary(
            failed=self.failed + other.failed,
            attacked=self.attacked or other.attacked,
            all=self.all + other.all,
            success=self.success + other.success,
            correct=self.correct + other.correct,
        )

    @classmethod
    def of(cls, votes: BlockElement) -> VoteSummary:
        """Return the stored summary of finalised votes.

        Raises:
            DamagedError: it is not one, or counts other samples than the votes have.
        """
        try:
            found = cls.model_validate(votes.summary())
        except ValidationError as error:
            raise unreadable_summary(votes, error) from error
        if found.all.n + found.failed != votes.plan.rows:
            raise DamagedError(
                f"the summary of votes/{votes.ref} counts {found.all.n + found.failed} samples, "
                f"but they have {votes.plan.rows}: run `regroup verify`"
            )
        return found


def unreadable_summary(element: BlockElement, error: ValidationError) -> DamagedError:
    """Return what is wrong with a sealed summary that does not hold what it should."""
    first = error.errors(include_url=False)[0]
    return DamagedError(
        f"the summary of {element.kind}/{element.ref} is damaged: "
        f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    )


@dataclass(frozen=True, eq=False)
class VoteRows:
    """The N samples of one block of votes.

    Attributes:
        sample_id: ids, (N,).
        ok: whether the sample has votes, (N,).
        success: True, False or None (not attacked), (N,) objects.
        right: whether softmax is correct, (N,).
        top5: whether the true class is among softmax's best five, (N,).
        true_rank: REGroup's rank of the true class, (N, signs, k).
        tap_true_rank: each tap's rank of the true class, (N, signs, taps).
    """

    sample_id: NDArray[np.str_]
    ok: NDArray[np.bool_]
    success: NDArray[np.object_]
    right: NDArray[np.bool_]
    top5: NDArray[np.bool_]
    true_rank: NDArray[np.int32]
    tap_true_rank: NDArray[np.int32]

    def counts(self, mask: NDArray[np.bool_]) -> GroupCounts:
        """Return the counts over the samples in `mask`, (N,)."""
        return GroupCounts(
            n=int(mask.sum()),
            softmax_top1=int((self.right & mask).sum()),
            softmax_top5=int((self.top5 & mask).sum()),
            top1=_hits(self.true_rank[mask], 1),
            top5=_hits(self.true_rank[mask], 5),
            tap_top1=_hits(self.tap_true_rank[mask], 1),
            tap_top5=_hits(self.tap_true_rank[mask], 5),
        )


def vote_rows(votes: BlockElement) -> Iterator[VoteRows]:
    """Yield the rows of votes, one block at a time."""
    for block in range(votes.plan.blocks):
        read = votes.read_table(block, _COLUMNS).to_pydict()
        table = {name: np.array(values) for name, values in read.items()}
        yield VoteRows(
            table["sample_id"],
            table["status"] == "ok",
            np.array(read["success"], object),
            table["prediction"] == table["label"],
            table["top5_correct"].astype(bool),
            votes.read_array(TRUE_RANK, block),
            votes.read_array(TAP_TRUE_RANK, block),
        )


def _hits(ranks: NDArray[np.int32], top: int) -> SignCounts:
    """_Count the `ranks`, (samples, signs, k or tap), that are among the best `top`."""
    hits = (ranks <= top).sum(axis=0).tolist()
    return SignCounts(**dict(zip(SIGN_CHOICES, map(tuple, hits), strict=True)))


def summarise(votes: BlockElement) -> JsonObject:
    """Return the summary to store with votes: a `VoteSummary` as plain JSON."""
    total = reduce(add, map(_block_summary, vote_rows(votes)))
    return total.model_dump(mode="json", exclude={"missing_blocks"})


def _block_summary(rows: VoteRows) -> VoteSummary:
    return VoteSummary(
        failed=int((~rows.ok).sum()),
        attacked=bool((rows.success != None).any()),  # noqa: E711 - an object array
        all=rows.counts(rows.ok),
        success=rows.counts(rows.ok & (rows.success == True)),  # noqa: E712 - None: not attacked
        correct=rows.counts(rows.ok & rows.right),
    )
