"""Iteration over the samples of an element, one block in memory at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from regroup_store.format.element import BlockElement


def tables(element: BlockElement, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
    """Yield the first row and the table of every block, in order, with `columns`.

    Raises:
        GapError: a block is not committed.
        DamagedError: a block does not match its commit record.
    """
    for block in range(element.plan.blocks):
        yield element.plan.span(block).start, element.read_table(block, columns)
