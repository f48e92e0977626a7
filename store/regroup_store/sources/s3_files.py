"""The objects of S3 as files from which a dataset is read."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Any

from fsspec.spec import AbstractBufferedFile
from obstore.fsspec import FsspecStore

from regroup_store.backends.s3 import s3_client, s3_errors
from regroup_store.sources.limits import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import S3Store


class S3Files(FsspecStore):
    """The objects of all buckets as files, `bucket/key`.

    Reading raises FileNotFoundError for an object that does not exist, and StoreError for every
    other failure: a failing server says nothing about an image.
    """

    protocol = "s3"
    cachable = False  # A client is of the variables that it was made under.

    def __init__(self) -> None:
        super().__init__("s3")

    def _construct_store(self, bucket: str) -> S3Store:
        return s3_client(bucket)

    async def _cat_file(
        self,
        path: str,
        start: int | None = None,
        end: int | None = None,
        largest: int | None = None,
        **options: Any,
    ) -> bytes:
        """Read an object, or a range of it.

        Raises:
            TooLargeError: it has more than `largest` bytes; they are not fetched.
        """
        with _s3_errors(path):
            if largest is None:
                return await super()._cat_file(path, start, end, **options)
            bucket, key = self._split_path(path)
            found = await self._construct_store(bucket).get_async(key)
            size = int(found.meta["size"])
            if size <= largest:
                return bytes(await found.bytes_async())
        raise TooLargeError(size, largest)

    async def _info(self, path: str, **options: Any) -> dict[str, Any]:
        with _s3_errors(path):
            return await super()._info(path, **options)

    async def _ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        with _s3_errors(path):
            entries = await super()._ls(path, detail=True, **options)
        return entries if detail else sorted(entry["name"] for entry in entries)

    async def _isfile(self, path: str) -> bool:
        try:
            return bool((await self._info(path))["type"] == "file")
        except FileNotFoundError:
            return False

    def _open(self, path: str, mode: str = "rb", **_: Any) -> _RangeReader:  # type: ignore[override]
        return _RangeReader(self, path, mode)


class _RangeReader(AbstractBufferedFile):  # type: ignore[misc]
    """A file read in ranges, so that its errors are those of `S3Files`."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path, start, end))


@contextlib.contextmanager
def _s3_errors(path: str) -> Iterator[None]:
    try:
        with s3_errors(f"reading s3://{path} failed"):
            yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "there is no such object", path) from error
