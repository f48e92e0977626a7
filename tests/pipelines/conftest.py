"""One local Ray, one trained digits-cnn and one finished demo for all tests of the commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from regroup_cluster.session import SessionConfig, ray_session
from regroup_pipelines.cli import main
from regroup_pipelines.commands import demo
from regroup_pipelines.configs.studies import DemoConfig
from regroup_pipelines.json_types import JsonObject
from regroup_pipelines.results.records import EvaluationResults, StudyResults
from tests.kept_workers import kept_workers
from tests.pipelines.records import study_results
from tests.pipelines.reported import Reported, make_report


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def call(*args: object) -> Outcome:
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return Outcome(int(stop.value.code or 0), out, err)

    return call


@pytest.fixture(scope="package")
def local_ray() -> Iterator[None]:
    with kept_workers(), ray_session(SessionConfig(None)):
        yield


@dataclass(frozen=True)
class FinishedDemo:
    """The demo's options, and what it printed."""

    config: DemoConfig
    printed: JsonObject

    @cached_property
    def results(self) -> StudyResults:
        """The results among what it printed."""
        return study_results(self.printed)

    @property
    def evaluation(self) -> EvaluationResults:
        """The demo's one pair of tap policy and bank."""
        return self.results.evaluations[0]

    @property
    def taps(self) -> list[str]:
        """Names, in execution order."""
        return [row.tap for row in self.evaluation.tap_accuracy]

    @property
    def store(self) -> str:
        return self.config.store

    @property
    def weights(self) -> Path:
        return Path(self.config.output) / "digits-cnn.safetensors"


@pytest.fixture(scope="package")
def finished_demo(
    local_ray: None, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> FinishedDemo:
    """The whole demo, on 48 attacked images, run once."""
    folder = tmp_path_factory.mktemp("demo")
    output = folder / "results"
    output.mkdir()
    (output / weights.name).write_bytes(weights.read_bytes())
    config = DemoConfig(store=str(folder / "store"), output=str(output), limit=48, json=True)
    return FinishedDemo(config, demo.main(config))


@pytest.fixture(scope="package")
def reported(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """A small study with its report, made once."""
    return make_report(tmp_path_factory.mktemp("reported"))
