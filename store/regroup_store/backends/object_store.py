"""A store in an object store, through obstore: create-only writes by conditional PUT."""

from __future__ import annotations

import contextlib
import time
import uuid
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from zarr.storage import ObjectStore, StorePath

from regroup_store.backends.base import validate_key, validate_prefix
from regroup_store.backends.s3 import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    may_have_succeeded,
    retry_seconds,
    s3_errors,
    store_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from obstore.store import MemoryStore, S3Store

# User metadata of an object that `create` wrote: the random name of the call.
CALL = "regroup-call"


@dataclass(frozen=True)
class ObjectBackend:
    """The objects below `client`'s prefix; `Backend` documents the methods."""

    client: S3Store | MemoryStore
    uri: str
    locks: ClassVar[bool] = False

    def read(self, key: str) -> bytes:
        """GET."""
        with self.reads(key):
            return bytes(obstore.get(self.client, validate_key(key)).bytes())

    def create(self, key: str, data: bytes) -> bool:
        """PUT on the condition that there is no such object.

        A PUT may have succeeded although its answer was lost; retried, it finds its own object. So
        each object carries the name of the call that created it, and that call has won.
        """
        call, pause = uuid.uuid4().hex, FIRST_PAUSE_S
        give_up = time.monotonic() + retry_seconds()
        while not self._put_new(key, data, call, give_up):
            if (creator := self._creator(key)) is not None:
                return creator == call
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        return True

    def replace(self, key: str, data: bytes) -> None:
        """PUT."""
        with self.writes(key):
            obstore.put(self.client, validate_key(key), data)

    def write(self, key: str, data: bytes) -> None:
        """PUT: durable at once."""
        self.replace(key, data)

    def exists(self, key: str) -> bool:
        """HEAD."""
        with self._s3_errors("looking for", key):
            try:
                obstore.head(self.client, validate_key(key))
            except FileNotFoundError:
                return False
        return True

    def keys(self, prefix: str = "") -> list[str]:
        """LIST below `prefix`."""
        return sorted(key for key, _ in self._objects(prefix))

    def children(self, prefix: str = "") -> list[str]:
        """LIST one level below `prefix`."""
        with self._s3_errors("listing", prefix):
            found = obstore.list_with_delimiter(self.client, prefix=validate_prefix(prefix) or None)
        objects = (entry["path"] for entry in found["objects"])
        # Some servers list the folder itself as an object without bytes.
        paths = [*found["common_prefixes"], *(path for path in objects if path != prefix)]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def partials(self, prefix: str) -> list[str]:  # noqa: ARG002  (the interface's)
        """None: an object appears only once it is complete."""
        return []

    def links(self) -> list[str]:
        """None: an object store has no links."""
        return []

    def size(self, prefix: str) -> int:
        """Sum the sizes of the objects below `prefix`."""
        return sum(size for _, size in self._objects(prefix))

    def delete(self, key: str) -> None:
        """DELETE; an object that does not exist is ignored."""
        with self.writes(key), contextlib.suppress(FileNotFoundError):
            obstore.delete(self.client, validate_key(key))

    def prune(self, prefix: str) -> None:
        """Remove the empty folders that some servers (SeaweedFS) keep and list."""
        if self.keys(prefix):
            return
        for name in self.children(prefix):
            self.prune(f"{prefix}/{name}")
        self.delete(prefix)

    @contextlib.contextmanager
    def lock(self, key: str, slot: int) -> Iterator[None]:  # noqa: ARG002  (the interface's)
        """No effect: a late writer is detected by the commit's checksums."""
        yield

    def sync(self, keys: list[str]) -> None:
        """No effect: a PUT that returned is durable."""

    def prefetch(self, keys: Iterable[str]) -> None:
        """No effect: there is no cache to fill."""

    def reads(self, what: str) -> AbstractContextManager[None]:
        """Turn obstore's errors into a sentence: exit status 2 if the server refused, else 1."""
        return self._s3_errors("reading", what)

    def writes(self, what: str) -> AbstractContextManager[None]:
        """Turn obstore's errors into a sentence: exit status 2 if the server refused, else 1."""
        return self._s3_errors("writing", what)

    def zarr_store(self, prefix: str) -> StorePath:
        """Open zarr's client for the folder `prefix`."""
        return StorePath(ObjectStore(self.client), validate_key(prefix))

    def _put_new(self, key: str, data: bytes, call: str, give_up: float) -> bool:
        """PUT once; False where it is unknown which call created the object, if any."""
        mark = {CALL: call}
        try:
            obstore.put(self.client, validate_key(key), data, mode="create", attributes=mark)
        except (AlreadyExistsError, PreconditionError):
            return False
        except (BaseError, OSError) as error:
            reported = store_error(self._doing("writing", key), error)
            if time.monotonic() >= give_up or not may_have_succeeded(error):
                raise reported from error
            return False
        return True

    def _creator(self, key: str) -> str | None:
        """Which call created the object: "" if unknown, None if there is no object."""
        with self.reads(key):
            try:
                found = obstore.get(self.client, validate_key(key), options={"head": True})
            except FileNotFoundError:
                return None
        return str(found.attributes.get(CALL, ""))

    def _objects(self, prefix: str) -> Iterator[tuple[str, int]]:
        with self._s3_errors("listing", prefix):
            for batch in obstore.list(self.client, prefix=validate_prefix(prefix) or None):
                yield from ((entry["path"], entry["size"]) for entry in batch)

    def _s3_errors(self, doing: str, key: str) -> AbstractContextManager[None]:
        return s3_errors(self._doing(doing, key))

    def _doing(self, doing: str, key: str) -> str:
        return f"the store {self.uri} failed {doing} {key or 'its root'}"
