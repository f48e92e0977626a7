"""Errors of the cluster package; each message says what is wrong, where, and what to do."""


class ClusterError(Exception):
    """Base of all errors that the cluster package raises deliberately (exit status 1)."""

    exit_status: int = 1


class ClusterUsageError(ClusterError):
    """Invalid resources, addresses or options (exit status 2)."""

    exit_status = 2
