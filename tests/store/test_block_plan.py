"""Block plans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regroup_store.format.block_plan import BlockPlan, format_blocks


@given(st.integers(1, 500), st.integers(1, 600))
def test_blocks_cover_every_row_once_in_order(rows: int, block_rows: int) -> None:
    plan = BlockPlan(rows, block_rows)
    spans = [plan.span(block) for block in range(plan.blocks)]
    assert [row for span in spans for row in range(span.start, span.stop)] == list(range(rows))
    assert all(plan.size(block) == block_rows for block in range(plan.blocks - 1))


@pytest.mark.parametrize(("rows", "block_rows"), [(0, 1), (1, 0), (-1, 4)])
def test_empty_plans_are_refused(rows: int, block_rows: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        BlockPlan(rows, block_rows)


@pytest.mark.parametrize("block", [-1, 3])
def test_blocks_outside_are_refused(block: int) -> None:
    with pytest.raises(IndexError, match="plan of 3 blocks"):
        BlockPlan(5, 2).span(block)


def test_blocks_are_written_as_people_write_them() -> None:
    assert format_blocks([7, 2, 5, 6]) == "2, 5-7"
    assert format_blocks(list(range(0, 40, 2))).endswith("14 and 12 further runs")
