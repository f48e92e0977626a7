"""Errors of the store; each says what is wrong, where, and what to do."""

from __future__ import annotations


class StoreError(Exception):
    """Base of every error that the store raises on purpose (exit status 1).

    Attributes:
        exit_status: of a command that ends with this error.
        fatal: the next block or attempt would fail the same way, so a retry is pointless.
    """

    exit_status: int = 1
    fatal: bool = False


class StoreUsageError(StoreError):
    """What the user named does not exist or cannot be used (exit status 2)."""

    exit_status = 2
    fatal = True


class StoreUnavailableError(StoreError):
    """The entire store has become unusable: it is full or has vanished."""

    fatal = True


class SchemaVersionError(StoreError):
    """What is stored was written under a schema version that this release cannot read."""

    fatal = True


class FingerprintMismatchError(StoreError):
    """The element found is not the one that its place, or the request, says."""

    fatal = True


class GapError(StoreError):
    """Planned blocks have no commit record, so the element is incomplete."""


class DamagedError(StoreError):
    """Stored bytes do not match their checksum or their commit record."""


class LinkError(StoreError):
    """A file or folder of the store is a link, which is never followed."""
