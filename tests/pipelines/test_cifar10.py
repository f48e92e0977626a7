"""The whole path on a few hundred real images: CIFAR-10 and the ResNet-20 of ../shared/data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regroup_pipelines.banks.build import build_bank
from regroup_pipelines.configs.options import (
    AttackOptions,
    BankOptions,
    ClusterOptions,
    ModelOptions,
    VotingOptions,
)
from regroup_pipelines.results.accuracy import rule_of_k
from regroup_pipelines.results.counts import VoteSummary
from regroup_pipelines.schema.attack_options import attack_spec
from regroup_pipelines.steps.attacking import attack_index, correct_samples
from regroup_pipelines.steps.extraction import extract_adversarials, extract_index
from regroup_pipelines.steps.indexing import index_dataset
from regroup_pipelines.steps.network import open_network
from regroup_pipelines.steps.rescoring import rescore
from regroup_pipelines.steps.session import Session
from regroup_store.kinds.banks import read_bank

pytestmark = pytest.mark.shared_data


def first_rows(source: Path, pattern: str, rows: int, target: Path) -> str:
    """A Parquet file with the first `rows` rows of a split, as a dataset spec."""
    part = sorted(source.glob(pattern))[0]
    pq.write_table(pa.Table.from_batches([next(pq.ParquetFile(part).iter_batches(rows))]), target)
    return f"parquet:{target}"


@dataclass(frozen=True)
class Cifar:
    summaries: dict[str, VoteSummary]
    taps: tuple[str, ...]

    def accuracy(self, name: str, k: int, signs: str = "both") -> float:
        summary = self.summaries[name]
        group = summary.success if summary.attacked else summary.all
        return group.top1.of(signs)[k - 1] / group.n


@pytest.fixture(scope="module")
def cifar(shared_data: Path, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Cifar:
    folder = tmp_path_factory.mktemp("cifar")
    data = shared_data / "cifar10"
    train = first_rows(data, "train-*.parquet", 1500, folder / "train.parquet")
    test = first_rows(data, "test-*.parquet", 300, folder / "test.parquet")
    weights = shared_data / "weights" / "cifar10-resnet20.safetensors"
    attacks = {
        "minimal": AttackOptions(protocol="minimal", limit=24, growth_limit=8, bisections=8),
        "budget": AttackOptions(protocol="budget", limit=64),
    }
    with Session(ClusterOptions(store=str(folder / "store"), block_rows=250)) as session:
        network = open_network(ModelOptions(model="cifar-resnet20", weights=str(weights)))
        val = index_dataset(session, test)
        clean = extract_index(session, network, val, 125)
        features = {"clean": clean}
        for name, options in attacks.items():
            subset = correct_samples(session, val, clean, options.limit, options.seed)
            made = attack_index(session, network, subset, attack_spec(options), 64)
            features[name] = extract_adversarials(session, network, made, 64)
        index = index_dataset(session, train)
        ref = build_bank(session, network, index, BankOptions(per_class=100), 125)
        bank = read_bank(session.store, ref)
        stored, cost = rescore(session, bank, list(features.values()), VotingOptions())
    assert cost.forward_passes == 0
    return Cifar({name: stored[e.name] for name, e in features.items()}, bank.taps)


def test_softmax(cifar: Cifar) -> None:
    """91.7 % on all of the test set; 300 images have a standard error of 1.6 points."""
    clean = cifar.summaries["clean"].all
    assert clean.n == 300
    assert 0.86 <= clean.softmax_top1 / clean.n <= 0.97


def test_clean_accuracy_at_the_rules_k(cifar: Cifar) -> None:
    """About 82 % with 500 per class from the lossy training images; 300 images: +- 2.2 points."""
    assert 0.72 <= cifar.accuracy("clean", 3) <= 0.90


def test_taps_get_better_with_depth_but_the_logits_are_weak(cifar: Cifar) -> None:
    clean = cifar.summaries["clean"].correct
    alone = np.array(clean.tap_top1.both) / clean.n
    assert len(alone) == len(cifar.taps) == 20
    assert alone[0] < 0.45
    assert alone[-2] > 0.85
    assert alone[-1] < alone[-2] - 0.15
    assert rule_of_k(cifar.summaries["clean"], 0.75).k >= 3


def test_minimal_perturbations_leave_the_taps_and_full_steps_do_not(cifar: Cifar) -> None:
    """The gap between the protocols (docs/protocols.md): about 55 to 60 % against 3 to 5 %."""
    minimal, budget = cifar.summaries["minimal"], cifar.summaries["budget"]
    assert minimal.success.n >= 23
    assert budget.success.n >= 60
    assert cifar.accuracy("minimal", 5) >= 0.35
    assert cifar.accuracy("budget", 5) <= 0.2
    assert cifar.accuracy("budget", 20) > cifar.accuracy("budget", 5)
