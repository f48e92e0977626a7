"""Image sources: where the encoded bytes of a dataset are, and the label of each image.

A source is named by a spec: ``digits``, ``digits:train``, ``digits:val``, ``imagefolder:PATH``,
``imagenet:train:PATH``, ``imagenet:val:PATH``, ``parquet:GLOB`` or ``webdataset:GLOB``, each but
the digits in a folder or at ``s3://bucket/...``. ``parquet[COLUMN]:`` and ``webdataset[COLUMN]:``
name where the labels are. Opening a source is cheap, since every worker does
it; ``rows()`` reads the labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_store.errors import StoreError, StoreUsageError
from regroup_store.secrets import without_secrets
from regroup_store.sources.digits import DigitsSource
from regroup_store.sources.imagefolder import ImageFolderSource
from regroup_store.sources.imagenet import ImageNetSource
from regroup_store.sources.limits import DEFAULT_LARGEST
from regroup_store.sources.parquet import ParquetSource
from regroup_store.sources.source import Source, SourceRow, error_message, split_spec
from regroup_store.sources.webdataset import WebDatasetSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["DEFAULT_LARGEST", "Source", "SourceRow", "open_source", "split_spec"]

KNOWN = (
    "digits, digits:train, digits:val, imagefolder:PATH, imagenet:train:PATH, imagenet:val:PATH, "
    "parquet:GLOB, webdataset:GLOB"
)
LOCATED: Mapping[str, Callable[[str, str | None, int], Source]] = {
    "imagefolder": lambda place, _, largest: ImageFolderSource(place, largest=largest),
    "imagenet": lambda place, _, largest: ImageNetSource(place, largest),
    "parquet": ParquetSource,
    "webdataset": WebDatasetSource,
}
# The kinds whose labels lie beside the images, in a column that may be named.
LABELLED = ("parquet", "webdataset")


def open_source(spec: str, largest: int = DEFAULT_LARGEST) -> Source:
    """Open the dataset that `spec` names.

    Args:
        spec: of the dataset; ``parquet[fine_label]:GLOB`` names its column of labels.
        largest: bytes that a single sample, page or part of a row group may cost.

    Raises:
        StoreUsageError: an unknown kind of dataset, or nothing usable at its location.
        StoreError: its location does not answer.
    """
    kind, label_column, location = split_spec(spec)
    if label_column is not None and kind not in LABELLED:
        raise StoreUsageError(
            f"{spec!r} names a column of labels ({label_column!r}), which only datasets of the "
            f"kinds {' and '.join(LABELLED)} have; leave it out"
        )
    if kind == "digits" and (":" in spec) == bool(location):
        return DigitsSource(location)
    if kind in LOCATED and location:
        return _located(spec, kind, location, label_column, largest)
    raise StoreUsageError(f"{spec!r} is not a dataset: use one of {KNOWN}")


def _located(spec: str, kind: str, location: str, label_column: str | None, largest: int) -> Source:
    """Open a dataset in its place.

    Raises:
        StoreError: a place elsewhere does not answer.
    """
    try:
        return LOCATED[kind](location, label_column, largest)
    except StoreError:
        raise
    except Exception as error:  # clients of other file systems raise errors of their own kinds
        if "://" not in location:
            raise
        raise StoreError(
            f"{without_secrets(spec)}: cannot be reached: {error_message(error)}; check the "
            "address and the network, then run the same command again"
        ) from error
