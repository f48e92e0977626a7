"""Which samples are attacked: those that the model gets right, drawn by seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from regroup.attacks import AttackSpec
from regroup.attacks.pgd.attack import PGD
from regroup.models import Compute, ModelSpec
from regroup_pipelines.configs.options import ClusterOptions
from regroup_pipelines.errors import UsageError
from regroup_pipelines.steps.attacking import attack_index, check_attackable, correct_samples
from regroup_pipelines.steps.network import Network
from regroup_pipelines.steps.session import Session
from regroup_pipelines.study.dry_run import DryRunSession
from regroup_store.format.element import BlockElement
from regroup_store.kinds.features import COLUMNS, LOGITS, features_spec
from regroup_store.kinds.indexes import COLUMNS as INDEX_COLUMNS
from regroup_store.kinds.indexes import SampleIndex
from tests.cluster.attacks import BlackBox, Coupled, Fake, Targeted

IDS = [f"s{row:02d}" for row in range(12)]
LABELS = [row % 3 for row in range(12)]
WRONG, FAILED = (2, 5), (6,)
CORRECT = [IDS[row] for row in range(12) if row not in (*WRONG, *FAILED)]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(ClusterOptions(store=str(tmp_path / "store"))) as session:
        yield session


def samples(session: Session, predictions: list[int]) -> tuple[SampleIndex, BlockElement]:
    rows = pa.table(
        {"sample_id": IDS, "label": LABELS, "locator": IDS, "digest": IDS}, schema=INDEX_COLUMNS
    )
    index = SampleIndex.write(
        session.store, "made-up", [rows], ["0", "1", "2"], "imagefolder:/nowhere"
    )
    spec = features_spec(
        "made-up", model={}, taps=(), policy="linear", source={"index": index.fingerprint},
        num_classes=3, rows=12, block_rows=12,
    )  # fmt: skip
    element = BlockElement.create(session.store, spec, {})
    columns = {
        "sample_id": IDS,
        "status": ["failed" if row in FAILED else "ok" for row in range(12)],
        "error": ["truncated" if row in FAILED else None for row in range(12)],
        "label": LABELS,
        "prediction": predictions,
        "confidence": [0.5] * 12,
        "true_confidence": [0.5] * 12,
        "top5": [None if row in FAILED else [0, 1, 2] for row in range(12)],
    }
    arrays = {LOGITS: np.zeros((12, 3), np.float32)}
    assert element.write_block(0, arrays, pa.table(columns, schema=COLUMNS), {})
    return index, element


def test_only_correct_samples_in_their_order_by_seed(session: Session) -> None:
    predictions = [(y + 1) % 3 if row in WRONG else y for row, y in enumerate(LABELS)]
    index, features = samples(session, predictions)

    def drawn(limit: int | None, seed: int) -> list[str]:
        subset = correct_samples(session, index, features, limit, seed)
        ids: list[str] = subset.rows()["sample_id"].to_pylist()
        return ids

    def literal(limit: int, seed: int) -> list[str]:
        by_hash = sorted(CORRECT, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())
        return sorted(by_hash[:limit])

    assert drawn(None, 0) == drawn(99, 1) == CORRECT
    assert [drawn(4, seed) for seed in (0, 1)] == [literal(4, seed) for seed in (0, 1)]
    assert literal(4, 0) != literal(4, 1)
    with pytest.raises(UsageError, match="--limit 0"):
        drawn(0, 0)


def test_a_model_that_gets_nothing_right(session: Session) -> None:
    index, features = samples(session, [(y + 1) % 3 for y in LABELS])
    with pytest.raises(UsageError, match="nothing to attack"):
        correct_samples(session, index, features, None, 0)


class NoGradient(torch.nn.Module):
    """A classifier of three classes whose forward is not differentiable."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    @torch.no_grad()
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(pixels.mean(dim=(2, 3)))
        return logits


class CutOff(NoGradient):
    """Its parameters have gradients; its input goes through whole numbers."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer((255 * pixels).byte().float().mean(dim=(2, 3)))
        return logits


def cut_off() -> torch.nn.Module:
    return CutOff()


def no_gradient() -> torch.nn.Module:
    return NoGradient()


NETWORK = Network(ModelSpec("digits-cnn", weights="random"), {"name": "tiny"}, "linear", (), 10, 32)


def planned(
    session: DryRunSession, index: SampleIndex, spec: AttackSpec, rows: int | None
) -> BlockElement:
    return attack_index(session, NETWORK, index, spec, 64, rows)


@pytest.fixture
def dry(session: Session) -> DryRunSession:
    """A job over the store of `samples` that computes nothing."""
    samples(session, LABELS)
    return DryRunSession(ClusterOptions(store=session.options.store, gpus_per_worker=0))


def test_names_and_blocks_of_adversarials(
    dry: DryRunSession, capsys: pytest.CaptureFixture[str]
) -> None:
    index = SampleIndex.open(dry.store, "made-up")
    budget = planned(dry, index, PGD(protocol="budget", steps=1), None)
    assert (budget.name, budget.plan.block_rows) == ("made-up-pgd-budget", 256)
    costly = planned(dry, index, Fake(passes=5000), None)
    assert costly.plan.block_rows == 16
    assert capsys.readouterr().err == ""
    targeted = planned(dry, index, Targeted(targeted=True), 5)
    assert (targeted.name, targeted.plan.block_rows) == ("made-up-fake-budget-targeted", 5)
    coupled = planned(dry, index, Coupled(seed=3), 6)
    assert coupled.plan.block_rows == 8
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "attack fake: blocks of 8 rows instead of 6: it runs on fixed groups of 4 samples"
    )


def test_an_element_that_is_there_keeps_its_plan(
    dry: DryRunSession, capsys: pytest.CaptureFixture[str]
) -> None:
    index = SampleIndex.open(dry.store, "made-up")
    first = planned(dry, index, Coupled(), 4)
    for rows in (None, 6):
        again = planned(dry, index, Coupled(), rows)
        assert (again.ref, again.plan.block_rows) == (first.ref, 4)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("factory", ["no_gradient", "cut_off"])
def test_a_white_box_attack_needs_gradients(factory: str) -> None:
    model = ModelSpec(f"{__name__}:{factory}", weights="random", crop=8, num_classes=3)
    network = replace(NETWORK, spec=model)
    with pytest.raises(UsageError, match=r"gives no gradient .*pgd is a white-box attack"):
        check_attackable(network, PGD())
    check_attackable(network, BlackBox())
    check_attackable(NETWORK, PGD())


def test_fp16_is_refused_for_white_box_attacks_alone() -> None:
    network = replace(NETWORK, spec=replace(NETWORK.spec, compute=Compute("fp16")))
    with pytest.raises(UsageError, match="gradients underflow"):
        check_attackable(network, PGD())
    check_attackable(network, BlackBox())
