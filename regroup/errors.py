"""Errors of the method package; each says what is wrong, where, and what to do."""


class RegroupError(Exception):
    """Base of every error the method package raises on purpose (exit status 1)."""

    exit_status: int = 1


class ConfigurationError(RegroupError):
    """What the user asked for cannot be meant: wrong name, range or combination (exit status 2)."""

    exit_status = 2
