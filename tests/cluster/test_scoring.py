"""The scoring worker: votes at the rows they belong to, -1 where there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from regroup.bank import Bank
from regroup.scoring import Scorer, TieBreak
from regroup_cluster.dispatch.attempt import measured
from regroup_cluster.workers.scoring import ScoringWork
from regroup_store.format.element import BlockElement
from regroup_store.format.store import Store, open_store
from regroup_store.kinds.adversarials import COLUMNS as ADVERSARIALS_COLUMNS
from regroup_store.kinds.adversarials import IMAGES, LATER, adversarials_spec
from regroup_store.kinds.banks import BankSpec, create_bank
from regroup_store.kinds.features import COLUMNS, LOGITS, accumulators_path, features_spec
from regroup_store.kinds.votes import (
    PREDICTION,
    TAP_PREDICTION,
    TAP_TRUE_RANK,
    TRUE_RANK,
    votes_spec,
)

TAPS, CLASSES = (("a", 4), ("b", 3)), 6
OK = np.array([False, True, True, False, True, True])
LABELS = np.array([0, 1, 2, 3, 4, 5])
SUCCESS = [False, True, False, False, True, True]


def status_columns() -> dict[str, list[object]]:
    return {
        "sample_id": [f"s{row}" for row in range(len(OK))],
        "status": ["ok" if good else "failed" for good in OK],
        "error": [None if good else "truncated" for good in OK],
        "label": LABELS.tolist(),
    }


def adversarials(store: Store) -> BlockElement:
    spec = adversarials_spec(
        "noise-pgd", model={}, attack={}, index_fingerprint="a" * 64,
        image_shape=(3, 1, 1), rows=len(OK), block_rows=len(OK),
    )  # fmt: skip
    element, zeros = BlockElement.create(store, spec, {}), [0] * len(OK)
    whole = ("adversarial_class", "target", "steps", "queries", "backward_passes", *LATER)
    columns = {
        **status_columns(),
        **dict.fromkeys(("success", "success_8bit", "claimed"), SUCCESS),
        **dict.fromkeys(whole, zeros),
        **dict.fromkeys(("epsilon", "l2", "linf", "mse"), [0.0] * len(OK)),
    }
    images = np.zeros((len(OK), 3, 1, 1), np.float32)
    table = pa.table(columns, schema=ADVERSARIALS_COLUMNS)
    assert element.write_block(0, {IMAGES: images}, table, {})
    return element


def features(store: Store, accumulators: list[NDArray[np.float32]], source: str) -> BlockElement:
    spec = features_spec(
        "noise-pgd", model={}, taps=TAPS, policy="preactivation", source={"adversarials": source},
        num_classes=CLASSES, rows=len(OK), block_rows=len(OK),
    )  # fmt: skip
    element = BlockElement.create(store, spec, {})
    columns = {
        **status_columns(),
        "prediction": np.where(OK, 2, -1).tolist(),
        "confidence": [0.5] * len(OK),
        "true_confidence": [0.1] * len(OK),
        "top5": [[2, 1, 5, 0, 3] if good else None for good in OK],
    }
    arrays = {accumulators_path(t): a for (t, _), a in zip(TAPS, accumulators, strict=True)}
    arrays[LOGITS] = np.zeros((len(OK), CLASSES), np.float32)
    assert element.write_block(0, arrays, pa.table(columns, schema=COLUMNS), {})
    return element


@pytest.mark.parametrize(
    ("names", "delta", "tie_break"),
    [
        (("a", "b"), 1e-20, "class"),
        (("b",), 1e-20, "class"),
        (("a", "b"), 0.5, "class"),
        (("a", "b"), 1e-20, "divergence"),
    ],
)
def test_votes_of_a_block_with_failed_rows(
    tmp_path: Path, names: tuple[str, ...], delta: float, tie_break: TieBreak
) -> None:
    store, random = open_store(str(tmp_path / "store"), create=True), np.random.default_rng(0)
    mixtures = tuple(random.dirichlet(np.ones(c), size=(2, CLASSES)) for _, c in TAPS)
    writer = create_bank(store, BankSpec("noise", {}, TAPS, tuple("uvwxyz")))
    for (tap, _), mixture in zip(TAPS, mixtures, strict=True):
        writer.write_tap(tap, mixture)
    bank = writer.finish([1] * CLASSES)
    attacked = adversarials(store)
    accumulators = [random.lognormal(size=(len(OK), 2, c)).astype(np.float32) for _, c in TAPS]
    stored = features(store, accumulators, attacked.fingerprint)
    spec = votes_spec(
        "noise-pgd", features_fingerprint=stored.fingerprint, bank_fingerprint="b" * 64,
        scoring={}, taps=names, rows=len(OK), block_rows=len(OK),
    )  # fmt: skip
    votes = BlockElement.create(store, spec, {})
    work = ScoringWork(
        store.uri, votes.ref, stored.ref, attacked.ref, bank, names, delta, tie_break, "cpu"
    )
    report = measured(work.open(), 0)
    assert (report.samples, report.failed, report.forward_passes) == (6, 2, 0)

    chosen = [number for number, (tap, _) in enumerate(TAPS) if tap in names]
    voting = Bank(names, tuple(mixtures[n] for n in chosen), np.ones(CLASSES, np.int64))
    scorer = Scorer(voting, delta=delta, tie_break=tie_break)
    expected = scorer.votes([accumulators[n][OK] for n in chosen], LABELS[OK])
    for path, values in (
        (PREDICTION, expected.prediction),
        (TRUE_RANK, expected.true_rank),
        (TAP_PREDICTION, expected.tap_prediction),
        (TAP_TRUE_RANK, expected.tap_true_rank),
    ):
        found = votes.read_array(path, 0)
        np.testing.assert_array_equal(found[OK], values)
        assert (found[~OK] == -1).all()
    table = votes.samples().to_pydict()
    assert table["success"] == SUCCESS
    assert table["top5_correct"] == [None, True, True, None, False, True]
    assert table["prediction"] == [-1, 2, 2, -1, 2, 2]
