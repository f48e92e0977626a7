"""Canonical JSON, fingerprints, checksums and seals against independently computed values."""

import hashlib
import json
import random

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from regroup_store.errors import DamagedError
from regroup_store.format.fingerprint import (
    canonical_json,
    checksum_array,
    fingerprint,
    seal,
    short_fingerprint,
    unseal,
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)  # fmt: skip


def test_canonical_json_is_the_text_that_the_format_specifies() -> None:
    value = {"b": [1, 1.0, 1e-20, 0.1], "a": {"é": None, "Z": True}, "c": ("x", -1)}
    assert canonical_json(value) == (
        b'{"a":{"Z":true,"\\u00e9":null},"b":[1,1.0,1e-20,0.1],"c":["x",-1]}'
    )


def test_canonical_strings_and_numbers_are_spelt_as_specified() -> None:
    assert (
        canonical_json('/"\\\n\x01\x7f\U0001f600') == b'"/\\"\\\\\\n\\u0001\\u007f\\ud83d\\ude00"'
    )
    assert canonical_json([1e15, 1e16, 1e-4, 1e-5, 1.5e300, -0.0]) == (
        b"[1000000000000000.0,1e+16,0.0001,1e-05,1.5e+300,-0.0]"
    )


def test_fingerprint_is_sha256_of_that_text() -> None:
    # printf '{"a":1}' | sha256sum
    assert fingerprint({"a": 1}) == (
        "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    )
    assert short_fingerprint(fingerprint({"a": 1})) == "015abd7f5cc57a2d"


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=6), st.randoms())
def test_fingerprint_does_not_depend_on_the_order_of_keys(
    value: dict[str, object], rng: random.Random
) -> None:
    items = list(value.items())
    rng.shuffle(items)
    assert fingerprint(dict(items)) == fingerprint(value)
    assert fingerprint(json.loads(json.dumps(value))) == fingerprint(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_numbers_that_json_lacks_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(value)


@pytest.mark.parametrize("value", [{1: 2}, [{"a": {None: 1}}], np.float32(1), b"bytes", {1, 2}])
def test_values_without_one_meaning_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


def test_checksum_is_over_little_endian_c_order_bytes() -> None:
    array = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    expected = xxhash.xxh3_64_hexdigest(
        bytes.fromhex("0000803f" "00000040" "00004040" "00008040")
    )  # fmt: skip
    assert checksum_array(array) == expected
    assert checksum_array(np.asfortranarray(array)) == expected
    assert checksum_array(array.astype(">f4")) == expected
    assert checksum_array(array[::-1]) != expected
    assert checksum_array(np.zeros((0, 3), np.float32)) == xxhash.xxh3_64_hexdigest(b"")


@given(st.dictionaries(st.text().filter(lambda k: k != "checksum"), JSON_VALUES, max_size=6))
def test_a_seal_returns_what_was_sealed(value: dict[str, object]) -> None:
    assert unseal(seal(value), "x") == json.loads(json.dumps(value))


@given(st.data())
def test_no_changed_byte_passes_a_seal_with_other_content(data: st.DataObject) -> None:
    record = {"rows": 12, "name": "a", "f": 0.5}
    sealed = bytearray(seal(record))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= data.draw(st.integers(1, 255))
    try:
        found = unseal(bytes(sealed), "the record")
    except DamagedError:
        return
    assert found == record  # Only white space changed.


def test_sealed_files_carry_a_checksum_that_others_can_compute() -> None:
    record = json.loads(seal({"b": 1, "a": 2}))
    assert record.pop("checksum") == xxhash.xxh3_64_hexdigest(b'{"a":2,"b":1}')
    assert hashlib.sha256(canonical_json(record)).hexdigest() == fingerprint(record)
