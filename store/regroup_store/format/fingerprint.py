"""Canonical JSON, fingerprints and sealed records (docs/format.md, "Canonical JSON").

What determines an element's content is hashed; what merely describes how it came to be is
recorded beside it. Checksums guard bytes against damage, fingerprints guard meaning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from regroup_store.errors import DamagedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHORT_LENGTH = 16
_SEAL = "checksum"


def canonical_json(value: object) -> bytes:
    """Encode `value` as its one JSON text: ASCII, sorted keys, no spaces, no NaN.

    Tuples count as lists.

    Raises:
        ValueError: a NaN or an infinity.
        TypeError: a key that is not a string, or a value that JSON cannot express (NumPy scalars
            among them).
    """
    _require_string_keys(value)
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode("ascii")


def _require_string_keys(value: object) -> None:
    """Refuse mappings such as {1: ...}, which json would silently turn into {"1": ...}."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a JSON object needs string keys, not {key!r}")
            _require_string_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _require_string_keys(item)


def fingerprint(value: Mapping[str, object]) -> str:
    """Hash the canonical JSON of `value` with sha256: 64 lower-case hex characters."""
    return hashlib.sha256(canonical_json(dict(value))).hexdigest()


def short_fingerprint(fingerprint: str) -> str:
    """The part of a fingerprint that names folders: its first 16 characters."""
    return fingerprint[:SHORT_LENGTH]


def checksum_bytes(data: bytes) -> str:
    """Compute the xxh3_64 of `data`: 16 lower-case hex characters."""
    return xxhash.xxh3_64_hexdigest(data)


def checksum_array(array: NDArray[np.generic]) -> str:
    """Compute the xxh3_64 of the little-endian, C-ordered bytes of `array` (any shape)."""
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    flat = np.ascontiguousarray(little).reshape(-1)
    return xxhash.xxh3_64_hexdigest(flat.view(np.uint8).data)


def encoded_digest(data: bytes) -> str:
    """Digest an encoded image as an index holds it: xxh3_128, 32 lower-case hex characters."""
    return xxhash.xxh3_128_hexdigest(data)


def seal(record: Mapping[str, object]) -> bytes:
    """Encode `record` as a JSON file that carries the checksum of its own canonical JSON."""
    body = dict(record)
    sealed = {**body, _SEAL: checksum_bytes(canonical_json(body))}
    return json.dumps(sealed, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def parse_record(data: bytes, where: str) -> dict[str, object]:
    """Parse a JSON object without verifying its checksum.

    Raises:
        DamagedError: `data` is not a JSON object; the message begins with `where`.
    """
    try:
        record = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise DamagedError(f"{where} is damaged: it is not a JSON object")
    return record


def unseal(data: bytes, where: str) -> dict[str, object]:
    """Parse a record that `seal` wrote, verify its checksum, and drop it.

    Raises:
        DamagedError: it is not what was written; the message begins with `where`.
    """
    record = parse_record(data, where)
    expected = record.pop(_SEAL, None)
    try:
        actual = checksum_bytes(canonical_json(record))
    except (ValueError, RecursionError):
        actual = "not canonical"
    if expected != actual:
        raise DamagedError(f"{where} is damaged: its content does not match its own checksum")
    return record


def unseal_if_sealed(data: bytes, where: str) -> dict[str, object]:
    """Parse a record that earlier releases wrote without a checksum; verify it where it has one.

    Raises:
        DamagedError: it is not what was written; the message begins with `where`.
    """
    record = parse_record(data, where)
    return unseal(data, where) if _SEAL in record else record
