"""Opening the backend of a store's URI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from regroup_store.backends.base import validate_prefix
from regroup_store.backends.local import LocalBackend
from regroup_store.backends.object_store import ObjectBackend
from regroup_store.backends.s3 import s3_client
from regroup_store.errors import StoreUsageError

if TYPE_CHECKING:
    from regroup_store.backends.base import Backend


def backend_for(uri: str) -> Backend:
    """Open the backend of a URI: a folder (plain or `file://`) or `s3://bucket/prefix`.

    S3 takes endpoint and credentials from the usual AWS_* variables, among them AWS_ENDPOINT_URL.

    Raises:
        StoreUsageError: another scheme, a missing bucket name, or settings that
            `regroup_store.backends.s3.s3_client` refuses.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _local(uri)
    if scheme == "file":
        return _local(rest)
    if scheme == "s3":
        return _s3(uri, *rest.strip("/").partition("/")[::2])
    raise StoreUsageError(
        f"cannot open the store {uri}: {scheme}:// is not supported; "
        "name a folder or s3://bucket/prefix"
    )


def _local(path: str) -> Backend:
    if not path:
        raise StoreUsageError("the store has an empty name: name a folder or s3://bucket/prefix")
    # Absolute, since workers run in other folders than the driver.
    return LocalBackend(Path(path).expanduser().absolute())


def _s3(uri: str, bucket: str, prefix: str) -> Backend:
    if not bucket:
        raise StoreUsageError(f"{uri} names no bucket: write s3://bucket/prefix")
    return ObjectBackend(s3_client(bucket, validate_prefix(prefix)), uri.rstrip("/"))
