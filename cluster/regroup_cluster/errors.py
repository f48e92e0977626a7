"""Errors of the cluster package; each says what is wrong, where, and what to do."""


class ClusterError(Exception):
    """Base of every error the cluster package raises on purpose (exit status 1)."""

    exit_status: int = 1


class ClusterUsageError(ClusterError):
    """Resources or addresses that cannot be meant (exit status 2)."""

    exit_status = 2
