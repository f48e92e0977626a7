from __future__ import annotations

import pytest
import tyro

from cluster.resources import WorkerResources
from pipelines.build_bank import BuildBankConfig

NEEDED = ["--store", "runs", "--dataset", "digits:val", "--model", "digits-cnn"]


@pytest.mark.parametrize(("given", "meant"), [([], "auto"), (["auto"], "auto"), (["3"], 3)])
def test_a_number_of_workers_or_as_many_as_fit(given: list[str], meant: object) -> None:
    options = [*NEEDED, *(["--workers", *given] if given else [])]
    config = tyro.cli(BuildBankConfig, args=options)
    assert config.workers == meant
    assert WorkerResources(config.workers).workers == meant


def test_another_word_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        tyro.cli(BuildBankConfig, args=[*NEEDED, "--workers", "many"])
    assert refused.value.code == 2
    assert "--workers" in capsys.readouterr().err
