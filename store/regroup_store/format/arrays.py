"""Block arrays in zarr format 3: one chunk per block, written at once by exactly one attempt."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from regroup_store.errors import DamagedError, StoreError
from regroup_store.format.chunk_codec import ZarrArray, decode_chunk, encode_chunk, is_decodable
from regroup_store.format.fingerprint import checksum_array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from regroup_store.backends.base import Backend
    from regroup_store.format.manifests import Location

DTYPES = ("float32", "float64", "int32", "int64")


def codecs() -> list[BloscCodec | Crc32cCodec]:
    """The codecs of every array, chosen by benchmarks/codec.py.

    The crc32c covers the compressed bytes, so that damaged ones never reach the decompressor.
    """
    return [BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()]


@dataclass(frozen=True)
class ArraySpec:
    """Description of an array of an element: rows first, then `tail`.

    Attributes:
        path: below the element, "<name>.zarr" or "<name>.zarr/<member>".
        tail: the shape of one row.
        dtype: one of DTYPES.
    """

    path: str
    tail: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        root, _, member = self.path.partition("/")
        if not root.endswith(".zarr") or "/" in member:
            raise ValueError(f"{self.path!r} is not '<name>.zarr' or '<name>.zarr/<member>'")
        if self.dtype not in DTYPES or any(size < 1 for size in self.tail):
            raise ValueError(f"{self} is not an array that a store can hold")

    @property
    def fill(self) -> float:
        """The value of rows without one: NaN, or -1 for integers."""
        return float("nan") if self.dtype.startswith("float") else -1

    def shape(self, rows: int) -> tuple[int, ...]:
        """Shape of the array, or of a block of it, with `rows` rows."""
        return (rows, *self.tail)


def create_array(
    backend: Backend, location: Location, spec: ArraySpec, rows: int, chunk_rows: int
) -> None:
    """Create the metadata of an array of `rows` rows, unless it exists.

    zarr composes it in memory and the backend creates it, so that it is atomic and durable, and
    so that zarr does not turn every parent folder into a group.
    """
    root = spec.path.partition("/")[0]
    for name, data in array_metadata(spec, rows, chunk_rows).items():
        backend.create(location.key(root, name), data)


def array_metadata(spec: ArraySpec, rows: int, chunk_rows: int) -> dict[str, bytes]:
    """Compose the metadata of an array, and of its group if any, by name below its `<x>.zarr`."""
    member = spec.path.partition("/")[2]
    memory = MemoryStore()
    if member:
        zarr.create_group(memory)
    zarr.create_array(
        memory,
        name=member or None,
        shape=spec.shape(rows),
        chunks=spec.shape(min(chunk_rows, rows)),
        dtype=spec.dtype,
        fill_value=spec.fill,
        compressors=codecs(),
    )
    return {key: memory._store_dict[key].to_bytes() for key in memory._store_dict}


def open_array(
    backend: Backend,
    location: Location,
    spec: ArraySpec,
    rows: int,
    chunk_rows: int | None = None,
) -> ZarrArray:
    """Open an array of the element.

    Args:
        backend: of the store.
        location: of the element.
        spec: of the array.
        rows: of the array.
        chunk_rows: rows per block, or None where its metadata alone knows.

    Raises:
        DamagedError: the array is not what the manifest says.
        StoreError: it could not be read.
    """
    where = f"{location.key(spec.path)} of the store {backend.uri}"
    try:
        with backend.reads(location.key(spec.path)):
            array = zarr.open_array(
                backend.zarr_store(location.key(spec.path)),
                mode="r+",
                zarr_format=3,
            ).with_config({"write_empty_chunks": True})
    except StoreError:
        raise
    except Exception as error:
        raise DamagedError(f"{where} cannot be opened: {error!r}") from error
    if array.shape != spec.shape(rows) or array.dtype != np.dtype(spec.dtype):
        raise DamagedError(
            f"{where} is {array.dtype} {array.shape}, but the manifest says "
            f"{spec.dtype} {spec.shape(rows)}"
        )
    planned = None if chunk_rows is None else spec.shape(min(chunk_rows, rows))
    if planned not in (None, array.chunks):
        raise DamagedError(
            f"{where} has chunks of {array.chunks}, but the manifest's blocks are {planned}"
        )
    return array


def chunk_key(location: Location, spec: ArraySpec, chunk: int) -> str:
    """Key of the chunk that holds block `chunk`."""
    return location.key(spec.path, "c", str(chunk), *("0" for _ in spec.tail))


def read_checked(
    array: ZarrArray,
    backend: Backend,
    location: Location,
    spec: ArraySpec,
    span: slice,
    checksum: str,
) -> NDArray[np.generic]:
    """Read rows `span` of an array and verify their checksum.

    Raises:
        DamagedError: the values are not what was written.
        StoreError: they could not be read.
    """
    where = f"rows {span.start}-{span.stop - 1} of {location.key(spec.path)}"
    again = f"of the store {backend.uri}: repair or rewrite this block"
    try:
        with backend.reads(location.key(spec.path)):
            values = _values(array, backend, location, spec, span)
    except StoreError:
        raise
    except FileNotFoundError:
        values = None
    except Exception as error:
        raise DamagedError(f"{where} cannot be decoded ({error!r}) {again}") from error
    if values is not None and checksum_array(values) == checksum:
        return values
    chunk = chunk_key(location, spec, span.start // array.chunks[0])
    if not backend.exists(chunk):
        raise DamagedError(f"the chunk {chunk} is missing {again}")
    raise DamagedError(f"{where} do not match the checksum of their commit {again}")


def write_chunk(
    array: ZarrArray,
    backend: Backend,
    location: Location,
    spec: ArraySpec,
    span: slice,
    values: NDArray[np.generic],
) -> None:
    """Write `values`, rows `span` of an array, as one chunk; durable after `sync`."""
    data = encode_chunk(array, values)
    if data is None:
        array[span] = values
    else:
        backend.write(chunk_key(location, spec, span.start // array.chunks[0]), data)


def stored_chunk_rows(
    backend: Backend, location: Location, specs: Sequence[ArraySpec], rows: int
) -> int | None:
    """Rows per block of an element that has lost its manifest; None where nothing is stored.

    The lost manifest's arrays and commits are still there (see `maintenance.repair`), and blocks of
    another size would not fit them.
    """
    if backend.children(location.key("commits")):
        for spec in specs:
            with suppress(DamagedError):
                return int(open_array(backend, location, spec, rows).chunks[0])
    return None


def _values(
    array: ZarrArray, backend: Backend, location: Location, spec: ArraySpec, span: slice
) -> NDArray[np.generic]:
    """Read rows `span`: exactly one chunk without zarr, anything else with it."""
    rows = span.stop - span.start
    chunk, offset = divmod(span.start, array.chunks[0])
    if offset or rows > array.chunks[0] or not is_decodable(array):
        return np.asarray(array[span])
    data = backend.read(chunk_key(location, spec, chunk))
    return decode_chunk(data, array.chunks, spec.dtype)[:rows]


def specs_to_json(specs: Sequence[ArraySpec], rows: int) -> list[dict[str, object]]:
    """Describe arrays as the manifest does: path, entire shape, dtype."""
    return [{"path": s.path, "shape": list(s.shape(rows)), "dtype": s.dtype} for s in specs]


def specs_from_json(entries: object, where: str) -> tuple[ArraySpec, ...]:
    """Parse the array descriptions of a manifest.

    Raises:
        DamagedError: they are not such descriptions; the message begins with `where`.
    """
    try:
        return tuple(_spec(entry) for entry in entries)  # type: ignore[attr-defined]
    except (TypeError, KeyError, ValueError) as error:
        raise DamagedError(f"{where} is damaged: its arrays are not readable ({error})") from error


def _spec(entry: Mapping[str, object]) -> ArraySpec:
    tail = tuple(int(size) for size in entry["shape"][1:])  # type: ignore[index]
    return ArraySpec(str(entry["path"]), tail, str(entry["dtype"]))


def storable_values(
    specs: Sequence[ArraySpec],
    arrays: Mapping[str, NDArray[np.generic]],
    rows: int,
    failed: NDArray[np.bool_],
) -> dict[str, NDArray[np.generic]]:
    """Check a block's arrays against their specs, and blank the failed rows.

    Returns:
        The arrays by path.

    Raises:
        ValueError: other arrays than the specs', or another shape or dtype.
    """
    if set(arrays) != {spec.path for spec in specs}:
        raise ValueError(f"arrays {sorted(arrays)} are not those of {[s.path for s in specs]}")
    return {spec.path: _blanked(arrays[spec.path], spec, rows, failed) for spec in specs}


def _blanked(
    array: NDArray[np.generic], spec: ArraySpec, rows: int, failed: NDArray[np.bool_]
) -> NDArray[np.generic]:
    """A copy of `array` with the fill value in failed rows; `array` itself if there are none."""
    if array.shape != spec.shape(rows) or array.dtype != np.dtype(spec.dtype):
        raise ValueError(
            f"{spec.path} is {array.dtype} {array.shape}, but the manifest says "
            f"{spec.dtype} {spec.shape(rows)}"
        )
    if not failed.any():
        return array
    blank = array.copy()
    blank[failed] = np.asarray(spec.fill, dtype=array.dtype)
    return blank


def require_blank(
    specs: Sequence[ArraySpec], arrays: Mapping[str, NDArray[np.generic]], failed: NDArray[np.bool_]
) -> None:
    """Check that the failed rows of a block's arrays hold the fill value.

    Raises:
        ValueError: one of them holds something else.
    """
    for spec in specs:
        rows, blank = arrays[spec.path][failed], np.asarray(spec.fill, spec.dtype)
        if not np.array_equal(rows, np.full_like(rows, blank), equal_nan=spec.fill != -1):
            raise ValueError(f"{spec.path} holds values of rows that failed")
