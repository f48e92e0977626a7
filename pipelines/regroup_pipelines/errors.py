"""Errors of the commands; each says what is wrong, where, and what to do."""

from regroup_pipelines.json_types import JsonObject


class UsageError(Exception):
    """Options or inputs that cannot be meant (exit status 2)."""

    exit_status = 2


class DamageFoundError(Exception):
    """The store holds damage (exit status 1); `summary` names it all, for --json."""

    exit_status = 1

    def __init__(self, message: str, summary: JsonObject) -> None:
        super().__init__(message)
        self.summary = summary


class IncompleteError(Exception):
    """Some blocks could not be done; the rest is committed (exit status 1)."""

    exit_status = 1
