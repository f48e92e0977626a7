"""Errors of the store; each says what is wrong, where, and what to do."""


class StoreError(Exception):
    """Base of every error the store raises on purpose (exit status 1).

    `ends_job`: the next block or attempt would meet it as well, so that trying on is of no use.
    """

    exit_status: int = 1
    ends_job: bool = False


class StoreUsageError(StoreError):
    """The user named something that is not there or cannot be used (exit status 2)."""

    exit_status = 2
    ends_job = True


class StoreUnavailableError(StoreError):
    """The whole store cannot be used any more: it is full or has vanished."""

    ends_job = True


class SchemaVersionError(StoreUsageError):
    """The element was written under a schema version that this release cannot read."""


class FingerprintMismatchError(StoreUsageError):
    """The element found is not the element asked for."""


class GapError(StoreError):
    """Planned blocks have no commit record, so the element is not whole."""


class DamagedError(StoreError):
    """What is stored does not match its checksum or its commit record."""
