"""The interface of image sources, and the one way to turn a location into a file system."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import fsspec

from regroup_store.errors import StoreUsageError
from regroup_store.secrets import without_secrets
from regroup_store.sources.s3_files import S3Files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from regroup_store.sources.left_out import LeftOut

# Without names the largest label gives the number of classes: beyond this it cannot be one.
MAX_CLASSES = 1_000_000
_SPEC = re.compile(r"([a-z]+)(?:\[([^\]]+)\])?:(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One image of a dataset.

    Attributes:
        sample_id: unique within the dataset, and the same wherever the dataset is stored.
        label: class index, in the order of the source's `class_names`.
        locator: where the image is within the source; what `Source.read` takes.
        stamp: changes when the image does: size and time of change of its file, an object's ETag.
    """

    sample_id: str
    label: int
    locator: str
    stamp: str


class Source(Protocol):
    """A dataset of encoded images with labels."""

    @property
    def spec(self) -> str:
        """Names the same dataset in any working directory."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the class indices."""

    @property
    def left_out(self) -> LeftOut:
        """What is no sample; complete once all of `rows` were taken."""

    def rows(self) -> Iterator[SourceRow]:
        """All images, always in the same order.

        Raises:
            StoreUsageError: there are none, or a label is invalid.
        """

    def read(self, locators: Sequence[str]) -> list[bytes | OSError]:
        """Encoded bytes in the order of `locators`; an unreadable image is returned as its error.

        Raises:
            StoreUsageError: a locator cannot be one of this source.
        """


def spec_of(kind: str, label_column: str | None, location: str) -> str:
    """The spec of a dataset: ``kind:location``, or ``kind[label column]:location``."""
    return f"{kind}[{label_column}]:{location}" if label_column else f"{kind}:{location}"


def split_spec(spec: str) -> tuple[str, str | None, str]:
    """Kind, label column if one is named, and location; the location is "" where none is named."""
    match = _SPEC.fullmatch(spec)
    return (match[1], match[2], match[3]) if match else (spec, None, "")


def file_system(location: str, spec: str) -> tuple[Any, str]:
    """Open the file system of `location`, and resolve the absolute path on it.

    S3 is read through the store's own clients, whose failures are StoreErrors.

    Returns:
        The fsspec file system, and the path.

    Raises:
        StoreUsageError: no file system is installed for this kind of URI, no bucket is named, or
            the URI holds a password or a signature.
    """
    if (shown := without_secrets(spec)) != spec:
        raise StoreUsageError(
            f"{shown}: its address holds a password or a signature, which manifests would record: "
            "leave that out, and give it as your object store's client reads it (for s3:// the "
            "AWS_* variables)"
        )
    if "://" not in location and not location.startswith("file:"):
        fs = fsspec.filesystem("file")  # fsspec itself takes "::" in a path for a chain
        return fs, str(fs._strip_protocol(location))
    if location.startswith("s3://"):
        if not (path := S3Files._strip_protocol(location)):
            raise StoreUsageError(f"{spec}: names no bucket; write s3://bucket/path")
        return S3Files(), str(path)
    try:
        fs, path = fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise StoreUsageError(f"{spec}: cannot be opened: {error_message(error)}") from error
    return fs, str(path)


def absolute(fs: Any, path: str) -> str:
    """`path` with its protocol, unless it is a local file's."""
    return path if "file" in fs.protocol else str(fs.unstrip_protocol(path))


# What file systems that are not local call the things that change with an object.
STAMP_KEYS = (
    "e_tag",
    "ETag",
    "etag",
    "md5Hash",
    "last_modified",
    "LastModified",
    "mtime",
    "created",
)


def stamp(fs: Any, entry: Mapping[str, Any]) -> str:
    """What changes when the listed file `entry` does; "missing" where it does not exist.

    For an object: its size and all that its server states about its version.
    """
    if "file" in fs.protocol:
        return _file_stamp(entry["name"])
    said = [f"{key}={entry[key]}" for key in STAMP_KEYS if entry.get(key) is not None]
    return " ".join([str(entry.get("size")), *said])


def _file_stamp(path: str) -> str:
    try:
        status = Path(path).stat()  # of what a link points to, which fsspec's own entry is not
    except OSError:
        return "missing"
    return f"{status.st_size} bytes, {status.st_mtime_ns} ns"


def error_message(error: Exception) -> str:
    """The message of `error` in one line; of an OSError, the part without this machine's path."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def unreadable(locator: str, error: Exception) -> OSError:
    """The error kept in place of an image's bytes."""
    return OSError(f"{locator} cannot be read: {error_message(error)}")
