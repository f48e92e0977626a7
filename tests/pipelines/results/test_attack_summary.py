"""The summary of an attack, against counts by hand; and of one that an old release stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from regroup_pipelines.configs.options import ClusterOptions
from regroup_pipelines.errors import UnreliableError
from regroup_pipelines.results.attack_summary import attack_summary, summarise_attack, summary_lines
from regroup_pipelines.results.attack_warnings import attack_warnings
from regroup_pipelines.results.records import AttackSummary
from regroup_pipelines.steps.attacking import check_reliable
from regroup_pipelines.steps.session import Session
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.adversarials import COLUMNS, FLAGS, IMAGES, adversarials_spec
from tests.store.elements import memory_store

OLD = Path(__file__).parents[2] / "data" / "schema-1" / "store"
# Two blocks, of three samples and of two; the second sample failed.
SAMPLES: dict[str, list[Any]] = {
    "sample_id": list("vwxyz"),
    "status": ["ok", "failed", "ok", "ok", "ok"],
    "error": [None, "no start", None, None, None],
    "label": [0, 1, 2, 3, 4],
    "success": [True, False, True, False, False],
    "success_8bit": [True, False, False, False, False],
    "claimed": [True, False, True, True, False],
    "adversarial_class": [1, -1, 0, -1, -1],
    "target": [-1] * 5,
    "epsilon": [0.5] * 5,
    "l2": [1.0, np.nan, 4.0, 9.0, 9.0],
    "linf": [0.25, np.nan, 0.75, 1.0, 1.0],
    "mse": [0.5] * 5,
    "steps": [3] * 5,
    "queries": [10, 5, 20, 30, 40],
    "backward_passes": [9, 4, 9, 9, 9],
    "gradients": [5, 3, 0, 4, 4],
    "zero_gradients": [0, 0, 0, 4, 1],
    "not_finite_gradients": [0, 3, 0, 0, 1],
    "flags": [0, 0, 0, 24, 8],
    "member": [-1] * 5,
}
SECONDS = [1.0, 0.0, 2.0, 3.0, 6.0]


def attacked(*, reports: bool = True, blocks: tuple[int, ...] = (0, 1)) -> BlockElement:
    spec = adversarials_spec(
        "a", model={}, attack={}, index_fingerprint="a" * 64, image_shape=(3, 1, 1), rows=5,
        block_rows=3,
    )  # fmt: skip
    element = BlockElement.create(memory_store(), spec, {})
    table = pa.table(SAMPLES, schema=COLUMNS)
    for block in blocks:
        span = element.plan.span(block)
        images = np.zeros((element.plan.size(block), 3, 1, 1), np.float32)
        report = {"sample_seconds": SECONDS[span], "halved_rows": 8 >> block} if reports else {}
        part = table.slice(span.start, span.stop - span.start)
        assert element.write_block(block, {IMAGES: images}, part, report)
    return element


def test_counts_by_hand() -> None:
    element = attacked()
    found = summarise_attack(element)
    element.finalise(found)
    assert "mean_seconds" not in found, "they are no part of the element"
    assert attack_summary(element).plain() == {
        "attempted": 4, "failed": 1, "success": 2, "success_8bit": 1, "claimed_not_verified": 1,
        "mean_l2": 2.5, "median_l2": 2.5, "mean_linf": 0.5, "median_linf": 0.5,
        "queries": 105, "mean_queries": 25.0, "median_queries": 25.0,
        "backward_passes": 40, "mean_backward_passes": 9.0, "median_backward_passes": 9.0,
        "mean_seconds": 3.0, "median_seconds": 2.5, "halved_rows": 4, "missing_blocks": [],
        "gradient_samples": 4, "zero_gradient_samples": 2, "not_finite_gradient_samples": 2,
        "bad_gradient_samples": 3, "flags": {"zero gradient": 2, "Square alone": 1},
    }  # fmt: skip


def test_without_the_attempts_accounts() -> None:
    found = attack_summary(attacked(reports=False))
    assert (found.attempted, found.mean_queries) == (4, 25.0)
    assert found.mean_seconds is found.median_seconds is found.halved_rows is None


def test_lines_for_people() -> None:
    lines = summary_lines(attack_summary(attacked()))
    assert lines[0] == (
        "attempted 4, failed 1; successful #S 2, rounded to 8 bits 1; claimed but not verified 1"
    )
    assert lines[2] == (
        "per sample, mean and median: 25 and 25 queries, 9 and 9 backward passes, 3 and 2.5 s"
    )
    assert lines[3] == "gradients of 4 samples not yet fooled: zero for 2, not finite for 2"


def test_an_element_of_an_old_release() -> None:
    """Which has none of the later columns: see tests/data/make_store.py for its rows."""
    element = BlockElement.open(open_store(str(OLD), writable=False), "adversarials", "pets-pgd")
    found = summarise_attack(element)
    assert (found["attempted"], found["failed"], found["success"]) == (2, 1, 1)
    assert (found["mean_l2"], found["mean_linf"], found["queries"]) == (1.5, 0.25, 46)
    assert found["success_8bit"] is found["claimed_not_verified"] is None
    assert found["backward_passes"] is found["mean_backward_passes"] is None
    read = attack_summary(element)
    assert (read.success, read.queries, read.success_8bit, read.mean_seconds) == (1, 46, None, None)
    assert "?" in " ".join(summary_lines(read))
    assert (read.gradient_samples, read.bad_gradient_samples, read.flags) == (None, None, None)
    assert summary_lines(read)[3] == "gradients not measured"
    assert attack_warnings(read) == []


@pytest.mark.parametrize(("bad", "samples"), [(2, 19), (1, 9), (1, 1), (18, 18)])
def test_more_than_a_tenth_of_useless_gradients_is_warned_of(bad: int, samples: int) -> None:
    summary = AttackSummary(
        attempted=50, failed=0, success=0, gradient_samples=samples, bad_gradient_samples=bad,
        zero_gradient_samples=bad, not_finite_gradient_samples=0,
    )  # fmt: skip
    (warning,) = attack_warnings(summary)
    assert f"for {bad} of {samples} samples not yet fooled" in warning
    for advice in ("BPDA", "black-box attack such as square"):
        assert advice in warning


@pytest.mark.parametrize(("bad", "samples"), [(0, 0), (0, 18), (1, 10), (2, 20)])
def test_a_tenth_or_less_is_not(bad: int, samples: int) -> None:
    summary = AttackSummary(
        attempted=50, failed=0, success=0, gradient_samples=samples, bad_gradient_samples=bad
    )
    assert attack_warnings(summary) == []


def test_autoattacks_own_checks_are_told() -> None:
    flags = dict.fromkeys(FLAGS, 3)
    warnings = attack_warnings(AttackSummary(attempted=4, failed=0, success=0, flags=flags))
    for name, warning in zip(FLAGS, warnings, strict=True):
        assert f"AutoAttack's own check, {name} (3 samples): " in warning


@pytest.mark.parametrize("strict", [False, True])
def test_strict_refuses_what_is_otherwise_warned_of(
    strict: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    element = attacked()
    session = Session(ClusterOptions(store=str(tmp_path)), strict=strict)
    check_reliable(session, element)
    assert capsys.readouterr().err == "", "nothing is made yet"
    element.finalise(summarise_attack(element))
    if strict:
        with pytest.raises(UnreliableError, match=r"for 3 of 4 samples .* --strict refuses"):
            check_reliable(session, element)
    else:
        check_reliable(session, element)
    first, *others = capsys.readouterr().err.splitlines()
    assert first.startswith(
        "warning: attack a: the input gradient was zero or not finite for 3 of 4"
    )
    assert len(others) == 2
    assert UnreliableError.exit_status == 1


def test_an_old_release_is_not_refused(tmp_path: Path) -> None:
    element = BlockElement.open(open_store(str(OLD), writable=False), "adversarials", "pets-pgd")
    check_reliable(Session(ClusterOptions(store=str(tmp_path)), strict=True), element)


def test_a_known_gap_counts_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    element = attacked(blocks=(0,))
    element.accept_gaps([1])
    gap = pa.table({**SAMPLES, "status": ["failed"] * 5, "success": [None] * 5}, schema=COLUMNS)
    monkeypatch.setattr(BlockElement, "_gap_rows", lambda _, block: gap.slice(3 * block))
    found = summarise_attack(element)
    assert (found["attempted"], found["failed"], found["success"]) == (2, 3, 2)
    assert attack_summary(element).mean_seconds == 1.5
    element.finalise(found, without=[1])
    assert attack_summary(element).missing_blocks == (1,)
