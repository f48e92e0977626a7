"""A store in an object store, through obstore: create-only writes by conditional PUT."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import MemoryStore, S3Store
from zarr.storage import ObjectStore, StorePath

from store.backend import validate_key, validate_prefix
from store.errors import StoreError, StoreUsageError


@dataclass(frozen=True)
class ObjectBackend:
    """The objects below `client`'s prefix; see `store.backend.Backend` for the methods."""

    client: S3Store | MemoryStore
    uri: str

    def read(self, key: str) -> bytes:
        """Return the object; raises FileNotFoundError."""
        try:
            return bytes(obstore.get(self.client, validate_key(key)).bytes())
        except FileNotFoundError:
            raise
        except (BaseError, OSError) as error:
            raise self._error("reading", key, error) from error

    def create(self, key: str, data: bytes) -> bool:
        """PUT with the condition that there is no such object."""
        try:
            with self.writes(key):
                obstore.put(self.client, validate_key(key), data, mode="create")
        except StoreError as error:
            if isinstance(error.__cause__, AlreadyExistsError | PreconditionError):
                return False
            raise
        return True

    def replace(self, key: str, data: bytes) -> None:
        """PUT."""
        with self.writes(key):
            obstore.put(self.client, validate_key(key), data)

    def exists(self, key: str) -> bool:
        """HEAD."""
        try:
            obstore.head(self.client, validate_key(key))
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as error:
            raise self._error("looking for", key, error) from error
        return True

    def keys(self, prefix: str = "") -> list[str]:
        """Return the sorted keys below `prefix`."""
        return sorted(key for key, _ in self._objects(prefix))

    def children(self, prefix: str = "") -> list[str]:
        """Return the sorted names one level below `prefix`."""
        try:
            found = obstore.list_with_delimiter(self.client, prefix=validate_prefix(prefix) or None)
        except (BaseError, OSError) as error:
            raise self._error("listing", prefix, error) from error
        paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def partials(self, prefix: str) -> list[str]:  # noqa: ARG002  (the interface's)
        """Nothing: an object that was not put whole cannot be seen."""
        return []

    def size(self, prefix: str) -> int:
        """Return the bytes of the objects below `prefix`."""
        return sum(size for _, size in self._objects(prefix))

    def delete(self, key: str) -> None:
        """DELETE; an object that is not there is no error."""
        with self.writes(key), contextlib.suppress(FileNotFoundError):
            obstore.delete(self.client, validate_key(key))

    @contextlib.contextmanager
    def lock(self, key: str, slot: int) -> Iterator[None]:  # noqa: ARG002  (the interface's)
        """Object stores have no locks: a late writer is detected by the commit's checksums."""
        yield

    def sync(self, keys: list[str]) -> None:
        """Nothing to do: a PUT that returned is durable."""

    @contextlib.contextmanager
    def writes(self, what: str) -> Iterator[None]:
        """Turn obstore's errors inside into one sentence: exit status 2 if refused, else 1."""
        try:
            yield
        except (BaseError, OSError) as error:
            raise self._error("writing", what, error) from error

    def zarr_store(self, prefix: str) -> StorePath:
        """Return zarr's client for the folder `prefix`."""
        return StorePath(ObjectStore(self.client), validate_key(prefix))

    def _objects(self, prefix: str) -> Iterator[tuple[str, int]]:
        try:
            for batch in obstore.list(self.client, prefix=validate_prefix(prefix) or None):
                yield from ((entry["path"], entry["size"]) for entry in batch)
        except (BaseError, OSError) as error:
            raise self._error("listing", prefix, error) from error

    def _error(self, doing: str, key: str, error: Exception) -> StoreError:
        # obstore appends a "Debug source" dump after the first line.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        message = f"the store {self.uri} failed {doing} {key or 'its root'}: {reason}"
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            return StoreUsageError(f"{message}; check the AWS_* variables and the bucket's policy")
        return StoreError(message)
