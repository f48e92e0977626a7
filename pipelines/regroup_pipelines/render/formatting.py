"""How sizes are told to people: in one way, everywhere."""

from __future__ import annotations


def human_size(count: int) -> str:
    """`count` bytes in decimal units, as disks and object stores are sold: `3.4 MB`."""
    from rich.filesize import decimal

    return decimal(count)
