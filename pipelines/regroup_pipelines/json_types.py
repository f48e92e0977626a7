"""Types of what is read and written as plain JSON or CSV, at the edges of the pipelines."""

from __future__ import annotations

from typing import Any

JsonObject = dict[str, Any]
"""Plain JSON, on its way in or out."""
FlatRow = dict[str, str | int | float | bool | None]
"""A row of a CSV file: every row of a file has the same keys; "" where there is no value."""
