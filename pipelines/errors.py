"""Errors of the commands; each says what is wrong, where, and what to do."""


class UsageError(Exception):
    """Options or inputs that cannot be meant (exit status 2)."""

    exit_status = 2


class IncompleteError(Exception):
    """Some blocks could not be done; the rest is committed (exit status 1)."""

    exit_status = 1
