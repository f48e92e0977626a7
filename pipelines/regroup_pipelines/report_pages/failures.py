"""Where the method fails: the classes and samples that lose most, and the classes they lose to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from regroup_pipelines.results.base import Accuracy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from regroup_pipelines.report_pages.outcomes import Outcomes

PAIRS_SHOWN, SAMPLES_SHOWN = 50, 50
# Larger heat maps are unreadable.
CLASSES_IN_MAP = 30


def answers(outcomes: Outcomes) -> dict[str, Accuracy]:
    """Count REGroup's answers on the images that fool softmax (S), as shares of S.

    Returns:
        The answers "true" (the true class), "adversarial" (the attack's class) and "other".
    """
    fooled = outcomes["success"]
    right = outcomes.regroup_right & fooled
    adversarial = (outcomes["attacked_regroup"] == outcomes["adversarial"]) & fooled & ~right
    total = int(fooled.sum())
    counts = {"true": right, "adversarial": adversarial, "other": fooled & ~right & ~adversarial}
    return {name: Accuracy(correct=int(mask.sum()), total=total) for name, mask in counts.items()}


@dataclass(frozen=True)
class ClassLoss:
    """Accuracy on the attacked samples of one class.

    Attributes:
        name: the class.
        attempted: its attacked samples.
        softmax: softmax on the attacked images.
        clean: REGroup on the clean images.
        attacked: REGroup on the attacked images.
        lost: samples on which REGroup is right for the clean image and wrong for the attacked one.
    """

    name: str
    attempted: int
    softmax: Accuracy
    clean: Accuracy
    attacked: Accuracy
    lost: int


def classes(outcomes: Outcomes, names: list[str]) -> list[ClassLoss]:
    """Return the classes with attacked samples, most lost first."""
    rows = []
    for label in np.unique(outcomes["label"]):
        mine = outcomes["label"] == label
        total = int(mine.sum())
        before, after = (mine & r for r in (outcomes.regroup_right_clean, outcomes.regroup_right))
        softmax = int((outcomes.softmax_right & mine).sum())
        rows.append(
            ClassLoss(
                name=names[label],
                attempted=total,
                softmax=Accuracy(correct=softmax, total=total),
                clean=Accuracy(correct=int(before.sum()), total=total),
                attacked=Accuracy(correct=int(after.sum()), total=total),
                lost=int((before & ~after).sum()),
            )
        )
    return sorted(rows, key=lambda row: (-row.lost / row.attempted, -row.lost))


@dataclass(frozen=True)
class Confusion:
    """REGroup's answers on the samples of one class that softmax takes for another.

    Attributes:
        name: the true class.
        adversarial_class: the class that softmax was fooled into.
        samples: number of such samples.
        true: samples to which REGroup gives the true class.
        adversarial: samples to which REGroup gives the adversarial class.
    """

    name: str
    adversarial_class: str
    samples: int
    true: int
    adversarial: int


def pairs(outcomes: Outcomes, names: list[str]) -> list[Confusion]:
    """Return every pair of true and adversarial class, those that REGroup confuses most first."""
    rows = np.flatnonzero(outcomes["success"] & (outcomes["adversarial"] >= 0))
    columns = ("label", "adversarial", "attacked_regroup")
    label, other, said = (outcomes[name][rows] for name in columns)
    found = []
    for first, second in dict.fromkeys(zip(label.tolist(), other.tolist(), strict=True)):
        mine = said[(label == first) & (other == second)]
        counts = (len(mine), int((mine == first).sum()), int((mine == second).sum()))
        found.append(Confusion(names[first], names[second], *counts))
    return sorted(found, key=lambda pair: (-pair.adversarial, -pair.samples))


@dataclass(frozen=True)
class SampleLoss:
    """A sample whose true class falls in REGroup's ranking.

    Attributes:
        sample_id: its id.
        name: its true class.
        clean_rank: REGroup's rank of the true class for the clean image.
        attacked_rank: the same for the attacked image.
        regroup: REGroup's answer on the attacked image.
        softmax: softmax's answer on the attacked image.
    """

    sample_id: str
    name: str
    clean_rank: int
    attacked_rank: int
    regroup: str
    softmax: str


def samples(outcomes: Outcomes, names: list[str]) -> list[SampleLoss]:
    """Return the samples whose true class falls furthest in rank, at most `SAMPLES_SHOWN`."""
    fall = outcomes["attacked_rank"] - outcomes["clean_rank"]
    order = np.argsort(-fall, kind="stable")[:SAMPLES_SHOWN]
    return [
        SampleLoss(
            sample_id=outcomes.sample_ids[row],
            name=names[outcomes["label"][row]],
            clean_rank=int(outcomes["clean_rank"][row]),
            attacked_rank=int(outcomes["attacked_rank"][row]),
            regroup=names[outcomes["attacked_regroup"][row]],
            softmax=names[outcomes["attacked_softmax"][row]],
        )
        for row in order
        if fall[row] > 0
    ]


def confusion(outcomes: Outcomes, num_classes: int) -> NDArray[np.int64]:
    """Count true class by REGroup's answer, (M, M), on the images that fool softmax."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    fooled = outcomes["success"]
    np.add.at(counts, (outcomes["label"][fooled], outcomes["attacked_regroup"][fooled]), 1)
    return counts
