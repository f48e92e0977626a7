"""Why rows failed is said once, the most frequent reasons first, and nothing left is an error."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest

from regroup_pipelines.errors import IncompleteError
from regroup_pipelines.steps.failed_rows import FailedRows, Reasons
from regroup_store.format.element import BlockElement
from tests.store.elements import make, memory_store, table, values


def element(errors: Sequence[str | None]) -> BlockElement:
    """Ten rows in blocks of four, those with an error failed, finalised with their number."""
    made = make(memory_store())
    for block in range(made.plan.blocks):
        span = made.plan.span(block)
        failed = tuple(row for row in range(span.start, span.stop) if errors[row])
        rows = table(made, block, failed)
        texts = pa.array(errors[span], pa.string())
        rows = rows.set_column(rows.schema.get_field_index("error"), rows.field("error"), texts)
        arrays = values(made, block)
        assert made.write_block(block, arrays, rows, {})
    made.finalise({"failed": sum(error is not None for error in errors)})
    return made


def test_reasons_are_counted_without_the_names_of_their_samples() -> None:
    reasons = Reasons()
    for sample, error in [
        ("a.png", "cannot read /data/a.png: truncated"),
        ("b.png", "out of\n memory"),
        ("c.png", "cannot read /data/c.png: truncated"),
        ("d.png", None),
        ("e.png", "x" * 1000),
    ]:
        reasons.add(sample, error)
    told = str(reasons)
    assert told.startswith(
        "cannot read /data/...: truncated (2, the first: a.png); out of memory (1, "
    )
    assert told.endswith("no reason given (1, the first: d.png); and 1 more reasons")


def test_a_reason_is_told_once_by_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    told, errors = FailedRows(), [None, "bad", *[None] * 5, "worse", "bad", None]
    told.tell("extract x", element(errors))
    said = "extract x: 3 of 10 samples failed: bad (2, the first: s1); worse (1, the first: s7)\n"
    assert capsys.readouterr().err == said
    told.tell("score x", element(errors))
    assert capsys.readouterr().err == "", "the features' failed rows have no votes, of course"
    told.tell("score x", element(["new", *[None] * 9]))
    assert "1 of 10 samples failed: new" in capsys.readouterr().err


def test_no_failed_row_is_no_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    FailedRows().tell("extract x", element([None] * 10))
    assert capsys.readouterr().err == ""


def test_nothing_left_is_an_error_whether_or_not_it_was_told() -> None:
    told, all_failed = FailedRows(), element(["bad"] * 9 + ["worse"])
    for _ in range(2):
        with pytest.raises(
            IncompleteError, match=r"all 10 samples failed: bad \(9, the first: s0\)"
        ):
            told.tell("extract x", all_failed)
    assert IncompleteError.exit_status == 1
