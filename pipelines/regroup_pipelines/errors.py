"""Errors of the commands. A message says what is wrong, where, and what to do."""

from regroup_pipelines.json_types import JsonObject


class UsageError(Exception):
    """Invalid options or inputs (exit status 2)."""

    exit_status = 2


class DamageFoundError(Exception):
    """The store is damaged (exit status 1).

    Attributes:
        summary: everything that is damaged, for --json.
    """

    exit_status = 1

    def __init__(self, message: str, summary: JsonObject) -> None:
        super().__init__(message)
        self.summary = summary


class IncompleteError(Exception):
    """Some blocks failed; all others are committed (exit status 1)."""

    exit_status = 1
