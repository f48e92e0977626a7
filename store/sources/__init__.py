"""Image sources: where the encoded bytes of a dataset lie, and which label each has.

A source is named by a spec: ``digits``, ``digits:train``, ``digits:val``, ``imagefolder:PATH``
or ``parquet:GLOB``, the last two in a folder or at ``s3://bucket/...``. Opening one is cheap, since
every worker does it; ``rows()`` reads the labels.
"""

from __future__ import annotations

from store.errors import StoreUsageError
from store.sources.digits import DigitsSource
from store.sources.imagefolder import ImageFolderSource
from store.sources.parquet import ParquetSource
from store.sources.source import Source, SourceRow

__all__ = ["Source", "SourceRow", "open_source"]

KNOWN = "digits, digits:train, digits:val, imagefolder:PATH, parquet:GLOB"


def open_source(spec: str) -> Source:
    """Open the dataset that `spec` names.

    Raises:
        StoreUsageError: an unknown kind of dataset, or nothing usable at its location.
    """
    kind, separator, location = spec.partition(":")
    if kind == "digits" and bool(separator) == bool(location):
        return DigitsSource(location)
    if kind == "imagefolder" and location:
        return ImageFolderSource(location)
    if kind == "parquet" and location:
        return ParquetSource(location)
    raise StoreUsageError(f"{spec!r} is not a dataset: use one of {KNOWN}.")
