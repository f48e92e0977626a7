"""How much memory one sample, header, name or row group may cost; bytes unless it says MB."""

from __future__ import annotations

# In MB: the default of --sample-memory.
SAMPLE_MEMORY = 256
DEFAULT_LARGEST = SAMPLE_MEMORY << 20
# Of a path on Linux; no file of a longer name can be unpacked.
LONGEST_NAME = 4096
# Of all headers before one file of an archive. Real ones have some thousands.
LARGEST_HEADER = 1 << 20


class TooLargeError(OSError):
    """A sample has more bytes than it may cost; the message begins with a verb."""

    def __init__(self, size: int, largest: int, part: str = "", what: str = "has") -> None:
        self.reason = f"has {size} bytes, above the {largest} that it may have"
        super().__init__(f"{what} {size} bytes, {above(largest, part)}")


def above(largest: int, part: str = "") -> str:
    """Say which limit, or which part of it, is passed, and the option that raises it."""
    return f"above {part}the limit of {largest >> 20} MB per sample (--sample-memory)"
