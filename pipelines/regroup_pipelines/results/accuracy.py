"""Rows of accuracy tables, from the summaries of votes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from regroup.choose_k import KChoice, apply_rule, fallback_sentence
from regroup_pipelines.log import log
from regroup_pipelines.results.base import Accuracies, Accuracy
from regroup_pipelines.results.records import KRow, MeasuredImages, TapRow
from regroup_store.kinds.votes import SIGN_CHOICES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from regroup_pipelines.results.counts import GroupCounts, VoteSummary


def accuracies(counts: GroupCounts, k: int, signs: str) -> Accuracies:
    """Return softmax's accuracies over a group, and REGroup's by the last `k` taps and `signs`."""
    return Accuracies(
        softmax_top1=Accuracy(correct=counts.softmax_top1, total=counts.n),
        softmax_top5=Accuracy(correct=counts.softmax_top5, total=counts.n),
        regroup_top1=Accuracy(correct=counts.top1.of(signs)[k - 1], total=counts.n),
        regroup_top5=Accuracy(correct=counts.top5.of(signs)[k - 1], total=counts.n),
    )


def accuracy_row(images: str, summary: VoteSummary, k: int, signs: str) -> MeasuredImages:
    """Return a row of the accuracy table: over the attempted samples, and over S where attacked."""
    attacked = summary.attacked
    return MeasuredImages(
        images=images,
        attempted=summary.all.n,
        failed=summary.failed,
        success=summary.success.n if attacked else None,
        k=k,
        signs=signs,
        over_all=accuracies(summary.all, k, signs),
        over_success=accuracies(summary.success, k, signs) if attacked else None,
    )


def k_rows(
    summaries: Mapping[str, VoteSummary], ks: Sequence[int], signs: Sequence[str]
) -> list[KRow]:
    """Return rows of the table of k: REGroup's top-1, over S where attacked, else over all."""
    groups = {name: s.success if s.attacked else s.all for name, s in summaries.items()}
    return [
        KRow(
            k=k,
            signs=choice,
            accuracy={
                name: Accuracy(correct=counts.top1.of(choice)[k - 1], total=counts.n)
                for name, counts in groups.items()
            },
        )
        for choice in signs
        for k in ks
    ]


def tap_rows(clean: VoteSummary, taps: Sequence[str], k: int) -> list[TapRow]:
    """Return each tap's own top-1 over the correctly classified clean samples, first to last."""
    counts = clean.correct
    return [
        TapRow(
            position=position + 1,
            tap=tap,
            votes=position >= len(taps) - k,
            accuracy={
                signs: Accuracy(correct=counts.tap_top1.of(signs)[position], total=counts.n)
                for signs in SIGN_CHOICES
            },
        )
        for position, tap in enumerate(taps)
    ]


def tap_accuracy(counts: GroupCounts, signs: str = "both") -> NDArray[np.float64]:
    """Return the accuracy of every tap alone over a group, (T,) float64; zeros over no samples."""
    hits = np.array(counts.tap_top1.of(signs), np.float64)
    accuracy: NDArray[np.float64] = hits / max(counts.n, 1)
    return accuracy


def rule_of_k(clean: VoteSummary, threshold: float) -> KChoice:
    """Choose k by the 75 % rule from the summary of clean votes (paper, section 3.2)."""
    return apply_rule(tap_accuracy(clean.correct), threshold)


def chosen_k(clean: VoteSummary, threshold: float, given: int | None) -> tuple[KChoice, int]:
    """Return what the rule chooses and the k that counts: the one `given`, else the rule's.

    Logs that the rule fell back to k = 1 where that counts.
    """
    rule = rule_of_k(clean, threshold)
    if not rule.reached and given is None:
        log(fallback_sentence(tap_accuracy(clean.correct), rule))
    return rule, given or rule.k
