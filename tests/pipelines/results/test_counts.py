"""A stored summary that cannot be is one sentence, not a number in a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from regroup_pipelines.results.counts import VoteSummary
from regroup_store.errors import DamagedError
from regroup_store.format.element import BlockElement
from regroup_store.kinds.votes import votes_spec
from tests.store.elements import memory_store
from tests.store.elements import table as rows_of

TAPS = ("one", "two")


def signs(*counts: int) -> dict[str, list[int]]:
    return {name: [*counts] for name in ("both", "positive", "negative")}


def group(n: int, right: int) -> dict[str, Any]:
    hits = {name: signs(right, right) for name in ("top1", "top5", "tap_top1", "tap_top5")}
    return {"n": n, "softmax_top1": right, "softmax_top5": n, **hits}


SOUND = {
    "failed": 1, "attacked": False, "all": group(9, 7), "success": group(0, 0),
    "correct": group(7, 7),
}  # fmt: skip


def votes(summary: dict[str, Any]) -> BlockElement:
    """Ten votes that are finalised with a summary; their blocks do not matter."""
    import numpy as np

    spec = votes_spec(
        "tiny", features_fingerprint="a" * 64, bank_fingerprint="b" * 64,
        scoring={"rule": "borda"}, taps=TAPS, rows=10, block_rows=10,
    )  # fmt: skip
    element = BlockElement.create(memory_store(), spec, {})
    arrays = {each.path: np.ones(each.shape(10), np.int32) for each in element.arrays}
    element.write_block(0, arrays, rows_of(element, 0), {})
    element.finalise(summary)
    return element


def test_a_sound_summary_is_read() -> None:
    assert VoteSummary.of(votes(SOUND)).all.top1.both == (7, 7)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: {**s, "failed": -1}, "failed: Input should be greater than or equal to 0"),
        (lambda s: {**s, "all": group(9, 10)}, "more than 9 of 9 samples are right"),
        (lambda s: {**s, "all": group(10**18, 7)}, "counts 1000000000000000001 samples"),
        (lambda s: {**s, "all": {**group(9, 7), "top1": signs(-2, 7)}}, "all.top1.both.0: "),
        (lambda s: {**s, "correct": None}, "correct: "),
        (lambda s: {"rows": 10}, "is damaged: failed: Field required"),
    ],
)
def test_counts_that_cannot_be_are_damage(
    change: Callable[[dict[str, Any]], dict[str, Any]], said: str
) -> None:
    with pytest.raises(DamagedError) as error:
        VoteSummary.of(votes(change(SOUND)))
    assert said in str(error.value)
