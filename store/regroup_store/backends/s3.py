"""S3: the one place that makes clients from the AWS_* variables and sentences from their errors."""

from __future__ import annotations

import contextlib
import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from regroup_store.errors import StoreError, StoreUsageError
from regroup_store.secrets import without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

RETRY_VARIABLE = "REGROUP_S3_RETRY_SECONDS"
RETRY_DEFAULT_S = 120.0
# A request is signed once and retried unmodified: its signature expires after five minutes.
RETRY_MOST_S = 280.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_REQUEST = re.compile(
    r"Error performing (\w+ [^\s?]+)\S* in (\S+?)(, after \d+ retries)?(?:,.*?)? - (.*)"
)
_CODE = re.compile(r"(?:<Code>|\(code: )(\w+)")
_METADATA = re.compile(r"http://169\.254\.|/latest/(api/token|meta-data)")
# What S3 answers to credentials or a region that are not right, with a status of 400.
_REFUSALS = {
    "AuthorizationHeaderMalformed", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken",
    "AccessDenied", "SignatureDoesNotMatch", "InvalidBucketName",
}  # fmt: skip


def s3_client(bucket: str, prefix: str = "") -> S3Store:
    """Open the client of a bucket, or of what is below `prefix` in it.

    Endpoint, region and credentials come from the AWS_* variables of this process: a pickled
    client holds no secret, and takes those of the process that unpickles it.

    Raises:
        StoreUsageError: the name cannot be a bucket's, the endpoint is not a URL, or
            REGROUP_S3_RETRY_SECONDS is not a valid number of seconds.
    """
    if not _BUCKET.fullmatch(bucket):
        named = without_secrets(f"s3://{bucket}")
        raise StoreUsageError(f"{named} names no bucket: write s3://bucket/prefix, without a key")
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options={"allow_http": _plain_http()},
        retry_config={
            "max_retries": 1000,  # bounded by time alone
            "retry_timeout": timedelta(seconds=retry_seconds()),
            "backoff": {
                "init_backoff": timedelta(seconds=FIRST_PAUSE_S),
                "max_backoff": timedelta(seconds=LONGEST_PAUSE_S),
                "base": 2,
            },
        },
    )


def retry_seconds() -> float:
    """How long a failing request is retried, in seconds.

    Raises:
        StoreUsageError: REGROUP_S3_RETRY_SECONDS is not a number, or out of range.
    """
    text = os.environ.get(RETRY_VARIABLE, "")
    try:
        seconds = float(text) if text else RETRY_DEFAULT_S
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= RETRY_MOST_S:
        raise StoreUsageError(f"{RETRY_VARIABLE}={text}: give seconds, 0 to {RETRY_MOST_S:g}")
    return seconds


def _plain_http() -> bool:
    """Whether the endpoint is http://, which the client refuses unless allowed."""
    plain = False
    for name in ENDPOINT_VARIABLES:
        if endpoint := os.environ.get(name):
            parts = urlsplit(endpoint)
            if parts.scheme not in ("http", "https") or not _host(endpoint):
                shown = without_secrets(endpoint)
                raise StoreUsageError(f"{name}={shown} is not a URL: write https://host[:port]")
            plain = plain or parts.scheme == "http"
    return plain


def _host(endpoint: str) -> str | None:
    """Return the host of a URL, None without one or where its port is no number."""
    try:
        parts = urlsplit(endpoint)
        return parts.hostname if parts.port is None or parts.port else None
    except ValueError:
        return None


@contextlib.contextmanager
def s3_errors(what: str) -> Iterator[None]:
    """Turn obstore's errors into a sentence that begins with `what`.

    FileNotFoundError stays itself.

    Raises:
        StoreUsageError: the server refused the request (exit status 2).
        StoreError: the request failed otherwise.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as error:
        raise store_error(what, error) from error


def store_error(what: str, error: Exception) -> StoreError:
    """Convert an error of obstore into one of the store."""
    text = without_secrets(str(error))
    code = match[1] if (match := _CODE.search(text)) else ""
    message = f"{what}: {_reason(text, code) or type(error).__name__}"
    if _METADATA.search(text.split("\n", 1)[0]):
        return StoreUsageError(
            f"{what}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run "
            "where an instance profile or a service account gives them"
        )
    if code == "NoSuchBucket":
        return StoreUsageError(f"{what}: there is no such bucket; check its name and the endpoint")
    if _refused(error, text, code):
        return StoreUsageError(f"{message}; check the AWS_* variables and the bucket's policy")
    return StoreError(f"{message}; run the same command again when the server is back")


def may_have_succeeded(error: Exception) -> bool:
    """Whether a failed request may have been carried out, its answer being lost."""
    return re.search(r"status code: 4\d\d\b", str(error)) is None


def _refused(error: Exception, text: str, code: str) -> bool:
    """Whether a retry with the same settings must fail."""
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or code in _REFUSALS:
        return True
    # Listings raise GenericError whatever the status was.
    return bool(re.search(r"status code: 40[13]\b|incorrectly configured region", text))


def _reason(text: str, code: str) -> str:
    """First line of obstore's message, without the XML and the dump of its source."""
    line = text.split("\n", 1)[0].partition(": <")[0]
    if match := _REQUEST.search(line):
        request, took, retries, why = match.groups()
        why = why.removeprefix("Server returned non-2xx status code: ").strip().rstrip(":")
        line = f"{why} ({request}, {took}{retries or ''})"
    return line if not code or code in line else f"{line} {code}"
