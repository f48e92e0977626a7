"""Where the method fails: classes and samples that lose most, and what takes their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from regroup_pipelines.results.accuracy import Accuracy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from regroup_pipelines.report_pages.outcomes import Outcomes

PAIRS_SHOWN, SAMPLES_SHOWN = 50, 50
# A larger heat map cannot be read.
CLASSES_IN_MAP = 30


def answers(outcomes: Outcomes) -> dict[str, Any]:
    """What REGroup says of the images that fool softmax (S): true, the attack's class, another."""
    fooled = outcomes["success"]
    right = outcomes.regroup_right & fooled
    adversarial = (outcomes["attacked_regroup"] == outcomes["adversarial"]) & fooled & ~right
    total = int(fooled.sum())
    counts = {"true": right, "adversarial": adversarial, "other": fooled & ~right & ~adversarial}
    return {name: Accuracy(int(mask.sum()), total).describe() for name, mask in counts.items()}


def classes(outcomes: Outcomes, names: list[str]) -> list[dict[str, Any]]:
    """A row a class with attacked samples: REGroup right before and after; most lost first.

    lost: right on the clean image and wrong on the attacked one.
    """
    rows = []
    for label in np.unique(outcomes["label"]):
        mine = outcomes["label"] == label
        before, after = (mine & r for r in (outcomes.regroup_right_clean, outcomes.regroup_right))
        rows.append(
            {
                "class": names[label],
                "attempted": int(mine.sum()),
                "softmax": Accuracy(int((outcomes.softmax_right & mine).sum()), int(mine.sum())),
                "clean": Accuracy(int(before.sum()), int(mine.sum())),
                "attacked": Accuracy(int(after.sum()), int(mine.sum())),
                "lost": int((before & ~after).sum()),
            }
        )
    return sorted(rows, key=lambda row: (-row["lost"] / row["attempted"], -row["lost"]))


def pairs(outcomes: Outcomes, names: list[str]) -> list[dict[str, Any]]:
    """A row a true class and class that softmax was fooled into: what REGroup says; most first."""
    fooled = np.flatnonzero(outcomes["success"] & (outcomes["adversarial"] >= 0))
    found: dict[tuple[int, int], dict[str, int]] = {}
    for row in fooled:
        label, other = int(outcomes["label"][row]), int(outcomes["adversarial"][row])
        said = int(outcomes["attacked_regroup"][row])
        counts = found.setdefault((label, other), {"samples": 0, "true": 0, "adversarial": 0})
        counts["samples"] += 1
        counts["true"] += said == label
        counts["adversarial"] += said == other
    rows = [
        {"class": names[label], "adversarial_class": names[other], **counts}
        for (label, other), counts in found.items()
    ]
    return sorted(rows, key=lambda row: (-row["adversarial"], -row["samples"]))


def samples(outcomes: Outcomes, names: list[str]) -> list[dict[str, Any]]:
    """The samples whose true class falls furthest in REGroup's order; at most `SAMPLES_SHOWN`."""
    fall = outcomes["attacked_rank"] - outcomes["clean_rank"]
    order = np.argsort(-fall, kind="stable")[:SAMPLES_SHOWN]
    return [
        {
            "sample_id": outcomes.sample_ids[row],
            "class": names[outcomes["label"][row]],
            "clean_rank": int(outcomes["clean_rank"][row]),
            "attacked_rank": int(outcomes["attacked_rank"][row]),
            "regroup": names[outcomes["attacked_regroup"][row]],
            "softmax": names[outcomes["attacked_softmax"][row]],
        }
        for row in order
        if fall[row] > 0
    ]


def confusion(outcomes: Outcomes, num_classes: int) -> NDArray[np.int64]:
    """Counts (M, M): true class by REGroup's answer on the images that fool softmax."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    fooled = outcomes["success"]
    np.add.at(counts, (outcomes["label"][fooled], outcomes["attacked_regroup"][fooled]), 1)
    return counts
