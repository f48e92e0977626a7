"""Image sources: where the encoded bytes of a dataset are, and the label of each image.

A source is named by a spec: ``digits``, ``digits:train``, ``digits:val``, ``imagefolder:PATH``,
``imagenet:train:PATH``, ``imagenet:val:PATH``, ``parquet:GLOB`` or ``webdataset:GLOB``, each but
the digits in a folder or at ``s3://bucket/...``. Opening a source is cheap, since every worker does
it; ``rows()`` reads the labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_store.errors import StoreUsageError
from regroup_store.sources.digits import DigitsSource
from regroup_store.sources.imagefolder import ImageFolderSource
from regroup_store.sources.imagenet import ImageNetSource
from regroup_store.sources.parquet import ParquetSource
from regroup_store.sources.source import Source, SourceRow
from regroup_store.sources.webdataset import WebDatasetSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Source", "SourceRow", "open_source"]

KNOWN = (
    "digits, digits:train, digits:val, imagefolder:PATH, imagenet:train:PATH, imagenet:val:PATH, "
    "parquet:GLOB, webdataset:GLOB"
)
LOCATED: Mapping[str, Callable[[str], Source]] = {
    "imagefolder": ImageFolderSource,
    "imagenet": ImageNetSource,
    "parquet": ParquetSource,
    "webdataset": WebDatasetSource,
}


def open_source(spec: str) -> Source:
    """Open the dataset that `spec` names.

    Raises:
        StoreUsageError: an unknown kind of dataset, or nothing usable at its location.
    """
    kind, separator, location = spec.partition(":")
    if kind == "digits" and bool(separator) == bool(location):
        return DigitsSource(location)
    if kind in LOCATED and location:
        return LOCATED[kind](location)
    raise StoreUsageError(f"{spec!r} is not a dataset: use one of {KNOWN}")
