"""Chunks encoded and decoded in one step, without zarr's pipeline.

zarr's pipeline copies each chunk several times and passes it between threads, at a third to a half
of the speed (benchmarks/v50k.py; docs/format.md, "What was measured").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc
from zarr import Array
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.core.metadata import ArrayV3Metadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

ZarrArray: TypeAlias = Array[Any]
_CRC_BYTES = 4
_BLOSC_HEADER_BYTES = 16
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


def is_decodable(array: ZarrArray) -> bool:
    """Whether `decode_chunk` reads the array's chunks: little-endian values, blosc, crc32c."""
    return _compressor(array) is not None


def _compressor(array: ZarrArray) -> BloscCodec | None:
    """The compressor of an array that has exactly these codecs, else None."""
    metadata = array.metadata
    if not isinstance(metadata, ArrayV3Metadata) or len(metadata.codecs) != 3:
        return None
    values, compressor, guard = metadata.codecs
    if not isinstance(values, BytesCodec) or not isinstance(guard, Crc32cCodec):
        return None
    little = values.endian is None or values.endian.value == "little"
    return compressor if little and isinstance(compressor, BloscCodec) else None


def encode_chunk(array: ZarrArray, values: NDArray[Any]) -> bytes | None:
    """Encode a chunk that begins with `values`; None where zarr has to write it."""
    compressor = _compressor(array)
    if compressor is None:
        return None
    padded = np.asarray(values, values.dtype.newbyteorder("<"), order="C")
    if values.shape != array.chunks:
        padded = np.full(array.chunks, array.fill_value, padded.dtype)
        padded[: len(values)] = values
    shuffle = _SHUFFLES[compressor.shuffle.value]
    blosc = Blosc(compressor.cname.value, compressor.clevel, shuffle, compressor.blocksize)
    body = blosc.encode(padded)
    guard = google_crc32c.value(np.frombuffer(body, np.uint8))
    return b"".join((body, int(guard).to_bytes(_CRC_BYTES, "little")))


def decode_chunk(data: bytes, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Decode a chunk into an array of `shape` and `dtype`.

    Raises:
        ValueError: the chunk is damaged.
    """
    body = np.frombuffer(data, np.uint8)[:-_CRC_BYTES]
    if google_crc32c.value(body) != int.from_bytes(data[-_CRC_BYTES:], "little"):
        raise ValueError("its bytes do not match its crc32c")
    values = np.empty(shape, np.dtype(dtype).newbyteorder("<"))
    # A shorter body would leave the rest of `values` uninitialised.
    if len(body) < _BLOSC_HEADER_BYTES or int.from_bytes(data[4:8], "little") != values.nbytes:
        raise ValueError(f"it does not hold {values.nbytes} bytes")
    Blosc().decode(body, values)
    return values
