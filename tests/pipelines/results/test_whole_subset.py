"""Robust accuracy over a whole subset, against a literal recount of every sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from regroup.intervals import wilson
from regroup_pipelines.results.accuracy import accuracies
from regroup_pipelines.results.base import MEASURES
from regroup_pipelines.results.counts import GroupCounts, SignCounts
from regroup_pipelines.results.records import ImagesNotRun, MeasuredImages, WholeSubset
from regroup_pipelines.results.whole_subset import whole_subset, whole_subset_notes
from regroup_pipelines.schema.attacks import Subset
from regroup_pipelines.schema.paper_values import MeasureName
from regroup_pipelines.study.subsets import subset_rows
from regroup_store.format.element import BlockElement
from regroup_store.format.store import Store
from regroup_store.kinds import votes
from regroup_store.kinds.indexes import COLUMNS, SampleIndex
from tests.store.elements import memory_store

ROWS, TAPS = 23, 3
NAMES = [f"s{number:02}" for number in range(ROWS)]
SUBSET = [name for number, name in enumerate(NAMES) if number % 4]
UNREADABLE, WRONG, LOST = {"s02", "s08"}, {"s01", "s03", "s13", "s22"}, {"s05", "s21"}
# Attacked, and in a block of the clean features that failed.
UNVOTED = {"s06"}
_NONE = SignCounts(both=(0,) * TAPS, positive=(0,) * TAPS, negative=(0,) * TAPS)
NOTHING = GroupCounts(
    n=0, softmax_top1=0, softmax_top5=0, top1=_NONE, top5=_NONE, tap_top1=_NONE, tap_top5=_NONE
)
ATTACKED = [name for name in SUBSET if name not in UNREADABLE | WRONG]


def index(store: Store, names: list[str]) -> SampleIndex:
    count = len(names)
    labels = [NAMES.index(name) % 3 for name in names]
    rows = {"sample_id": names, "label": labels, "locator": names, "digest": ["0" * 32] * count}
    table = pa.table(rows, schema=COLUMNS)
    return SampleIndex.write(store, "val", [table], ("a", "b", "c"), "imagefolder:val")


def scored(
    store: Store, names: list[str], failed: set[str], block_rows: int, seed: int, attacked: bool
) -> tuple[BlockElement, dict[str, Any]]:
    """Votes with ranks, predictions and top-5 of their own; and the same by sample id."""
    rng = np.random.default_rng(seed)
    count = len(names)
    spec = votes.votes_spec(
        "v", features_fingerprint=str(seed) * 64, bank_fingerprint="b" * 64, scoring={},
        taps=[f"t{n}" for n in range(TAPS)], rows=count, block_rows=block_rows,
    )  # fmt: skip
    bad = np.array([name in failed for name in names])
    ranks = rng.integers(1, 9, (count, 3, TAPS)).astype(np.int32)
    right = (
        np.array([name not in WRONG for name in names]) if not attacked else rng.random(count) > 0.6
    )
    rows = {
        "sample_id": names,
        "status": ["failed" if each else "ok" for each in bad],
        "error": [None] * count,
        "label": [1] * count,
        "prediction": np.where(bad, -1, right),
        "top5_correct": [
            None if b else bool(r or rng.random() > 0.5) for b, r in zip(bad, right, strict=True)
        ],
        "success": [
            bool(not r) if attacked and not b else None for b, r in zip(bad, right, strict=True)
        ],
    }
    element = BlockElement.create(store, spec, {})
    table = pa.table(rows, schema=votes.COLUMNS)
    ranks[bad] = -1
    for block in range(element.plan.blocks):
        span = element.plan.span(block)
        part = {array.path: np.ascontiguousarray(ranks[span]) for array in spec.arrays}
        element.write_block(block, part, table.slice(span.start, span.stop - span.start), {})
    by_id = {
        row["sample_id"]: {**row, "ranks": ranks[number]}
        for number, row in enumerate(table.to_pylist())
    }
    return element, by_id


@pytest.fixture
def whole() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    store = memory_store()
    clean, clean_rows = scored(store, NAMES, UNREADABLE | UNVOTED, 5, 1, attacked=False)
    attack, attack_rows = scored(store, ATTACKED[::-1], LOST, 4, 2, attacked=True)
    return whole_subset(index(store, SUBSET), clean, attack), clean_rows, attack_rows


ATTACK = MeasuredImages(
    images="pgd", attempted=13, failed=2, success=5, k=1, signs="both",
    over_all=accuracies(NOTHING, 1, "both"), over_success=accuracies(NOTHING, 1, "both"),
)  # fmt: skip
CLEAN = ATTACK.model_copy(update={"images": "clean", "success": None, "over_success": None})


def row_at(k: int, signs: str) -> MeasuredImages:
    """The attack's row at a k and a sign choice, before it counts the whole subset."""
    return ATTACK.model_copy(update={"k": k, "signs": signs})


def whole_of(row: MeasuredImages) -> WholeSubset:
    assert row.whole is not None
    return row.whole


def recounted(
    outcomes: list[dict[str, Any]], k: int, signs: int
) -> dict[MeasureName, tuple[int, int]]:
    """Correct and total of every cell, sample by sample."""
    total = len(outcomes)
    counts: dict[MeasureName, int] = dict.fromkeys(MEASURES, 0)
    for row in outcomes:
        counts["softmax_top1"] += row["prediction"] == row["label"]
        counts["softmax_top5"] += row["top5_correct"]
        counts["regroup_top1"] += row["ranks"][signs, k - 1] == 1
        counts["regroup_top5"] += row["ranks"][signs, k - 1] <= 5
    return {name: (int(count), total) for name, count in counts.items()}


@pytest.mark.parametrize("k", range(1, TAPS + 1))
@pytest.mark.parametrize("signs", votes.SIGN_CHOICES)
def test_every_cell_is_that_of_a_literal_recount(whole: Any, k: int, signs: str) -> None:
    counts, clean, attacked = whole
    robust, plain = [], []
    for name in SUBSET:
        if clean[name]["status"] == "failed" or name in LOST:
            continue
        robust.append(attacked[name] if name in attacked else clean[name])
        plain.append(clean[name])
    row = counts.in_row(row_at(k, signs), "V")
    for cells, outcomes in ((row.over_all, robust), (whole_of(row).clean, plain)):
        for name, (correct, total) in recounted(
            outcomes, k, votes.SIGN_CHOICES.index(signs)
        ).items():
            cell = cells.of(name)
            assert (cell.correct, cell.total) == (correct, total)
            assert cell.accuracy == pytest.approx(correct / total)
            assert cell.interval95 == pytest.approx(wilson(correct, total))
    kept = ("images", "attempted", "failed", "success", "k", "signs", "over_success")
    assert row.model_dump(include={*kept}) == row_at(k, signs).model_dump(include={*kept})


def test_what_is_counted_is_told(whole: Any) -> None:
    counts, *_ = whole
    row = counts.in_row(ATTACK, "V")
    # 17 samples; of them s02 cannot be read, and s05, s21 and s06 were lost (s08 is of no subset).
    assert (whole_of(row).subset, whole_of(row).samples, whole_of(row).counted) == ("V", 17, 13)
    assert whole_of(row).attacked == 13 - len(WRONG)
    other = row.model_copy(update={"images": "fgsm"})
    missing = ImagesNotRun(images="later", reason="the study skips it")
    (line,) = whole_subset_notes([row, other, CLEAN, missing])
    assert line.startswith('pgd, fgsm: "over all" counts 13 images of the subset V, ')
    assert line.endswith(
        "the other 4 by their clean image. 4 more have no outcome and are not counted."
    )
    assert list(whole_subset_notes([CLEAN, missing])) == []


def test_the_query_of_correct_samples_is_what_it_always_was() -> None:
    """Part of a fingerprint: subsets of earlier stores must be found again."""
    assert Subset(per_class=2, dataset="train").query == {
        "per_class": 2, "classes": None, "class_names": None, "limit": None, "seed": 0,
    }  # fmt: skip
    assert Subset(correct=False, class_names=("b", "a")).query == {
        "correct": False, "per_class": None, "classes": None, "class_names": ["a", "b"],
        "limit": None, "seed": 0,
    }  # fmt: skip


def test_a_whole_subset_is_drawn_from_all_images() -> None:
    images = index(memory_store(), NAMES)
    assert subset_rows(Subset(correct=False), images).rows == list(range(ROWS))
    two = subset_rows(Subset(correct=False, per_class=2), images).rows
    assert sorted(NAMES.index(NAMES[row]) % 3 for row in two) == [0, 0, 1, 1, 2, 2]
    only = subset_rows(Subset(per_class=2), images, {0, 1, 4})
    assert (only.rows, only.fewer) == ([0, 1, 4], {"a": 1, "c": 0})
    assert len(subset_rows(Subset(correct=False, limit=7, classes=2), images).rows) == 7
