"""The summary of an attack, against counts by hand; and of one that an old release stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from regroup_pipelines.results.attack_summary import attack_summary, summarise_attack, summary_lines
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.adversarials import COLUMNS, IMAGES, adversarials_spec
from tests.store.elements import memory_store

OLD = Path(__file__).parents[2] / "data" / "schema-1" / "store"
# Two blocks, of three samples and of two; the second sample failed.
SAMPLES: dict[str, list[Any]] = {
    "sample_id": list("vwxyz"),
    "status": ["ok", "failed", "ok", "ok", "ok"],
    "error": [None, "no start", None, None, None],
    "label": [0, 1, 2, 3, 4],
    "success": [True, False, True, False, False],
    "success_8bit": [True, False, False, False, False],
    "claimed": [True, False, True, True, False],
    "adversarial_class": [1, -1, 0, -1, -1],
    "target": [-1] * 5,
    "epsilon": [0.5] * 5,
    "l2": [1.0, np.nan, 4.0, 9.0, 9.0],
    "linf": [0.25, np.nan, 0.75, 1.0, 1.0],
    "mse": [0.5] * 5,
    "steps": [3] * 5,
    "queries": [10, 5, 20, 30, 40],
    "backward_passes": [9, 4, 9, 9, 9],
}
SECONDS = [1.0, 0.0, 2.0, 3.0, 6.0]


def attacked(*, reports: bool = True, blocks: tuple[int, ...] = (0, 1)) -> BlockElement:
    spec = adversarials_spec(
        "a", model={}, attack={}, index_fingerprint="a" * 64, image_shape=(3, 1, 1), rows=5,
        block_rows=3,
    )  # fmt: skip
    element = BlockElement.create(memory_store(), spec, {})
    table = pa.table(SAMPLES, schema=COLUMNS)
    for block in blocks:
        span = element.plan.span(block)
        images = np.zeros((element.plan.size(block), 3, 1, 1), np.float32)
        report = {"sample_seconds": SECONDS[span], "halved_rows": 8 >> block} if reports else {}
        part = table.slice(span.start, span.stop - span.start)
        assert element.write_block(block, {IMAGES: images}, part, report)
    return element


def test_counts_by_hand() -> None:
    element = attacked()
    found = summarise_attack(element)
    element.finalise(found)
    assert "mean_seconds" not in found, "they are no part of the element"
    assert attack_summary(element).plain() == {
        "attempted": 4, "failed": 1, "success": 2, "success_8bit": 1, "claimed_not_verified": 1,
        "mean_l2": 2.5, "median_l2": 2.5, "mean_linf": 0.5, "median_linf": 0.5,
        "queries": 105, "mean_queries": 25.0, "median_queries": 25.0,
        "backward_passes": 40, "mean_backward_passes": 9.0, "median_backward_passes": 9.0,
        "mean_seconds": 3.0, "median_seconds": 2.5, "halved_rows": 4, "missing_blocks": [],
    }  # fmt: skip


def test_without_the_attempts_accounts() -> None:
    found = attack_summary(attacked(reports=False))
    assert (found.attempted, found.mean_queries) == (4, 25.0)
    assert found.mean_seconds is found.median_seconds is found.halved_rows is None


def test_lines_for_people() -> None:
    lines = summary_lines(attack_summary(attacked()))
    assert lines[0] == (
        "attempted 4, failed 1; successful #S 2, rounded to 8 bits 1; claimed but not verified 1"
    )
    assert lines[2] == (
        "per sample, mean and median: 25 and 25 queries, 9 and 9 backward passes, 3 and 2.5 s"
    )


def test_an_element_of_an_old_release() -> None:
    """Which has none of the later columns: see tests/data/make_store.py for its rows."""
    element = BlockElement.open(open_store(str(OLD), writable=False), "adversarials", "pets-pgd")
    found = summarise_attack(element)
    assert (found["attempted"], found["failed"], found["success"]) == (2, 1, 1)
    assert (found["mean_l2"], found["mean_linf"], found["queries"]) == (1.5, 0.25, 46)
    assert found["success_8bit"] is found["claimed_not_verified"] is None
    assert found["backward_passes"] is found["mean_backward_passes"] is None
    read = attack_summary(element)
    assert (read.success, read.queries, read.success_8bit, read.mean_seconds) == (1, 46, None, None)
    assert "?" in " ".join(summary_lines(read))


def test_a_known_gap_counts_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    element = attacked(blocks=(0,))
    element.accept_gaps([1])
    gap = pa.table({**SAMPLES, "status": ["failed"] * 5, "success": [None] * 5}, schema=COLUMNS)
    monkeypatch.setattr(BlockElement, "_gap_rows", lambda _, block: gap.slice(3 * block))
    found = summarise_attack(element)
    assert (found["attempted"], found["failed"], found["success"]) == (2, 3, 2)
    assert attack_summary(element).mean_seconds == 1.5
    element.finalise(found, without=[1])
    assert attack_summary(element).missing_blocks == (1,)
