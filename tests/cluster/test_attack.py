"""The attack worker files every sample's adversarial under its own row, and judges what is stored.

Success is what the classifier says of the bytes in the store: never what a kernel claims.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from regroup.attacks import AttackSpec, run_attack
from regroup.attacks.pgd.attack import PGD
from regroup.errors import ConfigurationError
from regroup.models import ModelSpec
from regroup_cluster.dispatch.attempt import measured
from regroup_cluster.errors import ClusterUsageError
from regroup_cluster.workers.attack import AttackRefusedError
from regroup_store.kinds.adversarials import COLUMNS, IMAGES, LATER
from tests.cluster.attacks import Broken, Coupled, Liar, Noise, Targeted, noise

ATTACK = PGD(epsilon=64 / 255, steps=3, step_ratio=0.5, protocol="budget")
ROWS, CORRUPT, WRONG = 7, 1, 4
GOOD = [row for row in range(ROWS) if row not in (CORRUPT, WRONG)]
NETWORKS = [
    ModelSpec("digits-cnn", weights="random"),
    ModelSpec("cifar-resnet20", weights="random"),
]


def test_records_belong_to_their_rows(tmp_path: Path) -> None:
    """As one attack on all good rows at once: examples depend on no batch."""
    given = noise(tmp_path, ROWS, wrong=WRONG)
    given.photo(CORRUPT).write_bytes(b"not an image")
    work = given.work(ATTACK, ROWS)
    report = measured(work.open(), 0)
    assert (report.samples, report.failed) == (ROWS, 2)

    ids = [given.ids[row] for row in GOOD]
    expected = run_attack(ATTACK, given.classifier, given.pixels[GOOD], given.labels[GOOD], ids)
    element = given.element(work)
    images, table = element.read_array(IMAGES, 0), element.samples().to_pydict()
    np.testing.assert_array_equal(images[GOOD], expected.images)
    assert np.isnan(images[[CORRUPT, WRONG]]).all()
    for field in ("claimed", "target", "epsilon", "l2", "linf", "mse", "queries", "steps",
                  "backward_passes", *LATER):  # fmt: skip
        found = np.array(table[field])
        np.testing.assert_allclose(found[GOOD], getattr(expected, field), rtol=1e-6)
    assert table["label"] == given.labels.tolist()
    assert [row for row in range(ROWS) if table["status"][row] == "failed"] == [CORRUPT, WRONG]
    assert table["error"][WRONG] == "misclassified when it was attacked"
    assert [table["success"][row] for row in (CORRUPT, WRONG)] == [False, False]
    assert [table["adversarial_class"][row] for row in (CORRUPT, WRONG)] == [-1, -1]
    assert len(set(expected.l2.tolist())) == len(GOOD), "no two rows are alike"


def test_a_block_of_an_older_element_has_its_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = noise(tmp_path, 2)
    older = pa.schema([field for field in COLUMNS if field.name not in LATER])
    with monkeypatch.context() as patch:
        patch.setattr("regroup_store.kinds.adversarials.COLUMNS", older)
        work = given.work(ATTACK, 2)
    assert measured(work.open(), 0).committed
    assert given.work(ATTACK, 2).adversarials_ref == work.adversarials_ref
    table = given.element(work).samples()
    assert table.schema.names == older.names
    assert table["status"].to_pylist() == ["ok", "ok"]


def classes(given: Noise, images: np.ndarray[Any, Any]) -> list[int]:
    """What the plain classifier says, in one batch."""
    found: list[int] = given.classifier(torch.from_numpy(images)).argmax(1).tolist()
    return found


def test_success_is_what_the_classifier_says_of_the_stored_images(tmp_path: Path) -> None:
    given = noise(tmp_path, ROWS, NETWORKS[1])
    search = PGD(epsilon=4 / 255, steps=2, step_ratio=0.5, growth_limit=3, bisections=4)
    work = given.work(search, ROWS)
    measured(work.open(), 0)
    images = given.element(work).read_array(IMAGES, 0)
    table = given.element(work).samples().to_pydict()
    seen, rounded = classes(given, images), classes(given, np.rint(images * 255) / np.float32(255))
    labels = given.labels.tolist()
    assert table["success"] == [a != b for a, b in zip(seen, labels, strict=True)]
    assert table["success_8bit"] == [a != b for a, b in zip(rounded, labels, strict=True)]
    assert table["adversarial_class"] == [
        a if a != b else -1 for a, b in zip(seen, labels, strict=True)
    ]
    assert any(table["success"])


def test_a_claim_that_does_not_hold_is_no_success(tmp_path: Path) -> None:
    given = noise(tmp_path, ROWS)
    work = given.work(Liar(), ROWS)
    assert measured(work.open(), 0).failed == 0
    table = given.element(work).samples().to_pydict()
    assert table["claimed"] == [True] * ROWS
    assert table["success"] == table["success_8bit"] == [False] * ROWS
    assert table["adversarial_class"] == [-1] * ROWS


def test_what_is_judged_is_what_the_store_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that come back as clean ones are no success, whatever the worker has in memory."""
    given = noise(tmp_path, ROWS, NETWORKS[1])
    first = given.work(ATTACK, ROWS)
    measured(first.open(), 0)
    assert any(given.element(first).samples()["success"].to_pylist()), "else this shows nothing"
    monkeypatch.setattr("regroup_store.format.element.read_checked", lambda *_: given.pixels)
    second = given.work(replace(ATTACK, seed=2), ROWS)
    measured(second.open(), 0)
    monkeypatch.undo()
    assert given.element(second).samples()["success"].to_pylist() == [False] * ROWS


def test_what_a_kernel_fails_at_is_a_failed_row(tmp_path: Path) -> None:
    given = noise(tmp_path, 3)
    work = given.work(Broken(), 3)
    assert measured(work.open(), 0).failed == 2
    table = given.element(work).samples().to_pydict()
    assert table["status"] == ["failed", "failed", "ok"]
    assert table["error"] == [
        "the library raised ValueError: no start",
        "the attack returned NaN or values outside [0, 1]",
        None,
    ]
    assert np.isnan(given.element(work).read_array(IMAGES, 0)[:2]).all()
    assert table["success"][:2] == table["claimed"][:2] == [False, False]
    assert np.isnan(table["l2"][:2]).all()
    assert table["member"] == [-1, -1, 1]
    assert table["queries"] == [6, 6, 6], "what it cost is known all the same"


def test_seconds_are_in_the_commit_and_in_no_column(tmp_path: Path) -> None:
    given = noise(tmp_path, ROWS, wrong=WRONG)
    work = given.work(ATTACK, ROWS)
    measured(work.open(), 0)
    element = given.element(work)
    assert "seconds" not in element.samples().column_names
    seconds: Any = element.commit(0).report["sample_seconds"]
    assert len(seconds) == ROWS
    assert seconds[WRONG] == 0
    assert all(each > 0 for row, each in enumerate(seconds) if row != WRONG)


def test_targets_are_drawn_once_and_stored(tmp_path: Path) -> None:
    given = noise(tmp_path, ROWS)
    found = []
    for block_rows, batch in ((7, 3), (2, 1)):
        folder = tmp_path / str(block_rows)
        again = noise(folder, ROWS)
        work = again.work(Targeted(targeted=True), block_rows, batch=batch)
        worker = work.open()
        for block in range(again.element(work).plan.blocks):
            measured(worker, block)
        found.append(again.element(work).samples()["target"].to_pylist())
    assert found[0] == found[1]
    assert all(0 <= t < 10 and t != y for t, y in zip(found[0], given.labels, strict=True))


@pytest.mark.parametrize("model", NETWORKS, ids=lambda model: model.name)
@pytest.mark.parametrize(
    "attack",
    [
        PGD(epsilon=8 / 255, steps=1, protocol="budget"),
        PGD(epsilon=8 / 255, steps=1, protocol="minimal", growth_limit=1, bisections=1),
        Coupled(),
    ],
    ids=["budget", "minimal", "coupled"],
)
def test_examples_are_the_same_for_any_block_size_and_batch(
    tmp_path: Path, model: ModelSpec, attack: AttackSpec
) -> None:
    """Bitwise, and so are all columns."""
    rows, made = 6, []
    for number, (block_rows, batch) in enumerate(((8, 64), (4, 1))):
        given = noise(tmp_path / str(number), rows, model, wrong=2)
        work = given.work(attack, block_rows, batch=batch)
        element = given.element(work)
        for block in reversed(range(element.plan.blocks)):
            assert measured(work.open(), block).committed, "each by a worker of its own"
        blocks = [element.read_array(IMAGES, block) for block in range(element.plan.blocks)]
        made.append((np.concatenate(blocks), element.samples()))
    for images, table in made[1:]:
        np.testing.assert_array_equal(images, made[0][0])
        assert repr(table.to_pydict()) == repr(made[0][1].to_pydict()), "NaN is NaN here"


def test_a_group_is_never_cut_in_two(tmp_path: Path) -> None:
    given = noise(tmp_path, 8)
    with pytest.raises(ClusterUsageError, match=r"groups of 4 samples.*multiple"):
        given.work(Coupled(), 6).open()


def test_an_attack_that_the_model_does_not_allow_ends_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise ConfigurationError("the network gives no gradient")

    given = noise(tmp_path, 2)
    worker = given.work(ATTACK, 2).open()
    monkeypatch.setattr("regroup_cluster.workers.attack.run_attack", refused)
    with pytest.raises(AttackRefusedError, match="gives no gradient") as told:
        measured(worker, 0)
    assert (told.value.fatal, told.value.exit_status) == (True, 2)
