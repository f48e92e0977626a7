"""One local Ray and one small finished study, whose elements the tests remove and make again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from regroup_cluster.session import SessionConfig, ray_session
from regroup_pipelines.commands import attack, build_bank, extract, rescore
from regroup_pipelines.configs.steps import AttackConfig, BuildBankConfig, ExtractConfig
from regroup_pipelines.configs.stored import RescoreConfig
from tests.kept_workers import kept_workers
from tests.pipelines.conftest import run

__all__ = ["run"]


@pytest.fixture(scope="package")
def local_ray() -> Iterator[None]:
    """Two CPUs; an earlier folder's tests may have left theirs running, which is used then."""
    with kept_workers(), ray_session(SessionConfig(num_cpus=2)):
        yield


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that gets some samples of every class right: all that these tests ask of it."""
    import torch

    from regroup.models import DIGITS_METADATA, save_weights, train_digits_cnn
    from regroup_pipelines.steps.demo_model import load_split

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    network = train_digits_cnn(*load_split("digits:train"), seed=0, epochs=2)
    torch.set_num_threads(threads)
    path = tmp_path_factory.mktemp("weights") / "digits-cnn.safetensors"
    save_weights(network, path, DIGITS_METADATA)
    return path


@dataclass(frozen=True)
class Study:
    """A finished small study: digits:val under a small network, adversarials, bank and votes."""

    store: Path
    weights: Path
    bank: str

    @property
    def model(self) -> tuple[object, ...]:
        return ("--model", "digits-cnn", "--weights", self.weights)

    def element(self, kind: str) -> Path:
        """The folder of the only features, adversarials or votes."""
        (folder,) = self.store.glob(f"{kind}/digits-val-*")
        return folder


def contents(element: Path) -> dict[str, Any]:
    """All that must be the same after any disturbance, by file: neither times nor the report."""
    found: dict[str, Any] = {}
    for path in sorted(element.rglob("*")):
        name = path.relative_to(element).as_posix()
        if path.suffix == ".json" and path.name != "zarr.json":
            left_out = ("checksum", "report", "recorded")
            record = json.loads(path.read_bytes())
            found[name] = {key: record[key] for key in record if key not in left_out}
        elif path.is_file() and name != "lock" and path.suffix != ".partial":
            found[name] = path.read_bytes()
    return found


def commits(element: Path) -> dict[str, tuple[bytes, int]]:
    """The commit records: bytes and time of the last change, ns."""
    paths = (element / "commits").glob("*.json")
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


@pytest.fixture(scope="package")
def make_study(local_ray: None, weights: Path) -> Any:
    """How a finished study is made in a folder."""

    def make(folder: Path) -> Study:
        store = str(folder)
        model: Any = {"store": store, "model": "digits-cnn", "weights": str(weights), "workers": 1}
        extract.main(ExtractConfig(dataset="digits:val", block_rows=64, **model))
        attack.main(
            AttackConfig(dataset="digits:val", block_rows=6, limit=36, steps=2, batch=16, **model)
        )
        bank = build_bank.main(BuildBankConfig(dataset="digits:val", per_class=1, **model))
        rescore.main(RescoreConfig(store=store, bank=bank["bank"], workers=1))
        return Study(folder, weights, bank["bank"])

    return make


@pytest.fixture(scope="package")
def study(make_study: Any, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study"))  # type: ignore[no-any-return]
