"""The block plan: which rows of an index belong to which block, the unit of work."""

from __future__ import annotations

from dataclasses import dataclass

# Bounds of what a manifest may claim: lists of blocks are kept in memory.
MOST_PLANNED_ROWS = 2**40
MOST_BLOCKS = 2**21


@dataclass(frozen=True)
class BlockPlan:
    """`rows` rows divided into blocks of `block_rows`; the last block may be shorter."""

    rows: int
    block_rows: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.block_rows < 1:
            raise ValueError(f"a block plan needs positive sizes, not {self}")
        if self.rows > MOST_PLANNED_ROWS or self.blocks > MOST_BLOCKS:
            raise ValueError(
                f"{self.rows} rows in blocks of {self.block_rows} are more than {MOST_BLOCKS} "
                f"blocks, or than {MOST_PLANNED_ROWS} rows"
            )

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return -(-self.rows // self.block_rows)

    def span(self, block: int) -> slice:
        """Rows of `block`, as a slice.

        Raises:
            IndexError: the block is outside 0 to blocks - 1.
        """
        if not 0 <= block < self.blocks:
            raise IndexError(f"block {block} is outside the plan of {self.blocks} blocks")
        start = block * self.block_rows
        return slice(start, min(start + self.block_rows, self.rows))

    def size(self, block: int) -> int:
        """Number of rows of `block`."""
        span = self.span(block)
        return int(span.stop - span.start)


def format_blocks(blocks: list[int]) -> str:
    """Format block numbers for people, "2, 5-7": at most eight runs, then a count."""
    runs: list[list[int]] = []
    for block in sorted(blocks):
        if runs and block == runs[-1][1] + 1:
            runs[-1][1] = block
        else:
            runs.append([block, block])
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in runs[:8]]
    more = f" and {len(runs) - 8} further runs" if len(runs) > 8 else ""
    return ", ".join(shown) + more
