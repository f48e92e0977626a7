"""Formatting of sizes for people."""

from __future__ import annotations


def human_size(count: int) -> str:
    """Format `count` bytes in decimal units, as disks and object stores do: `3.4 MB`."""
    from rich.filesize import decimal

    return decimal(count)
