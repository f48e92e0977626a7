"""A block whose table is made from the arrays as read back from the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from regroup_store.errors import DamagedError
from regroup_store.format.arrays import write_chunk
from tests.store.elements import FLOATS, INTS, make, memory_store, snapshot, table, values


def always(rows: pa.Table) -> Callable[[object], pa.Table]:
    """A function that makes these rows, whatever the arrays."""
    return lambda _: rows


def test_the_table_is_made_of_what_was_read_back() -> None:
    store = memory_store()
    element = make(store)
    seen: list[Mapping[str, Any]] = []

    def table_of(stored: Mapping[str, Any]) -> pa.Table:
        chunks = [key for key in store.backend.keys("") if "/c/1/" in key]
        assert len(chunks) == 2, "they are in the store"
        assert element.committed() == set()
        assert not [key for key in store.backend.keys("") if key.endswith(".parquet")]
        seen.append(stored)
        return table(element, 1)

    given = values(element, 1)
    assert element.write_block(1, given, table_of, {"a": 1})
    for path in (FLOATS, INTS):
        np.testing.assert_array_equal(seen[0][path], given[path])
        assert seen[0][path] is not given[path]
    assert element.read_table(1).equals(table(element, 1))
    assert element.commit(1).report == {"a": 1}


def test_the_bytes_are_those_of_a_table_given_at_once() -> None:
    plain, other = memory_store(), memory_store()
    for store, read_back in ((plain, False), (other, True)):
        element = make(store)
        blank = {path: each.copy() for path, each in values(element, 0).items()}
        blank[FLOATS][2], blank[INTS][2] = np.nan, -1
        rows = table(element, 0, failed=(2,))
        assert element.write_block(0, blank, always(rows) if read_back else rows, {})
    first, second = ({k: v for k, v in snapshot(s).items() if "manifest" not in k}
                     for s in (plain, other))  # fmt: skip
    assert first == second


def test_a_committed_block_is_not_read_back_again() -> None:
    element = make(memory_store())
    assert element.write_block(0, values(element, 0), table(element, 0), {})

    def never(_: object) -> pa.Table:
        raise AssertionError

    assert not element.write_block(0, values(element, 0), never, {})


def test_values_of_a_failed_row_are_refused() -> None:
    element = make(memory_store())
    with pytest.raises(ValueError, match="holds values of rows that failed"):
        element.write_block(0, values(element, 0), lambda _: table(element, 0, failed=(1,)), {})
    assert element.committed() == set()


def test_what_comes_back_otherwise_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A faulty disk, or a concurrent attempt with other values in an object store."""
    element = make(memory_store())

    write: Any = write_chunk

    def other(*place: Any) -> None:
        *where, written = place
        write(*where, written + 1)

    monkeypatch.setattr("regroup_store.format.element.write_chunk", other)
    with pytest.raises(DamagedError, match="do not match the checksum"):
        element.write_block(0, values(element, 0), lambda _: table(element, 0), {})
    assert element.committed() == set()
