"""Whole chunks decoded in one step. zarr's own pipeline copies each several times over and passes
it between threads; benchmarks/v50k.py measured a third of the speed for it (docs/format.md).
"""

from typing import Any, TypeAlias

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc
from numpy.typing import NDArray
from zarr import Array
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.core.metadata import ArrayV3Metadata

ZarrArray: TypeAlias = Array[Any]
_CRC_BYTES = 4
_BLOSC_HEADER_BYTES = 16


def decodable(array: ZarrArray) -> bool:
    """Whether `decode` reads the array's chunks: little-endian values, blosc, crc32c."""
    metadata = array.metadata
    if not isinstance(metadata, ArrayV3Metadata) or len(metadata.codecs) != 3:
        return False
    values, compressor, guard = metadata.codecs
    return (
        isinstance(values, BytesCodec)
        and (values.endian is None or values.endian.value == "little")
        and isinstance(compressor, BloscCodec)
        and isinstance(guard, Crc32cCodec)
    )


def decode(data: bytes, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Return the values of a chunk, of `shape` and `dtype`; ValueError where they are damaged."""
    body = np.frombuffer(data, np.uint8)[:-_CRC_BYTES]
    if google_crc32c.value(body) != int.from_bytes(data[-_CRC_BYTES:], "little"):
        raise ValueError("its bytes do not match its crc32c")
    values = np.empty(shape, np.dtype(dtype).newbyteorder("<"))
    # A shorter one would leave the rest of `values` as it is.
    if len(body) < _BLOSC_HEADER_BYTES or int.from_bytes(data[4:8], "little") != values.nbytes:
        raise ValueError(f"it does not hold {values.nbytes} bytes")
    Blosc().decode(body, values)
    return values
