"""Errors of the method package; each says what is wrong, where, and what to do."""


class RegroupError(Exception):
    """Base of every error that the method package raises on purpose (exit status 1)."""

    exit_status: int = 1


class ConfigurationError(RegroupError):
    """An invalid request: a wrong name, range or combination of options (exit status 2)."""

    exit_status = 2
