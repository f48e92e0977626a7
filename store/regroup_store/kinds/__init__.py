"""The kinds of elements: what each one holds."""

from __future__ import annotations
