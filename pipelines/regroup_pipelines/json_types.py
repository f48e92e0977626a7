"""Types of plain JSON and CSV rows, as the pipelines read and write them."""

from __future__ import annotations

from typing import Any

JsonObject = dict[str, Any]
"""A JSON object that was just read or is about to be written."""
FlatRow = dict[str, str | int | float | bool | None]
"""A row of a CSV file. All rows of a file have the same keys; "" stands for a missing value."""
