from __future__ import annotations

from pathlib import Path

import pytest
import tyro

from regroup_cluster.resources import WorkerResources
from regroup_pipelines.configs.steps import BuildBankConfig
from tests.pipelines.colours import MODEL, colour_folder
from tests.pipelines.conftest import Run

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


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--decoder", "cuda"), "decoder cuda: images can be decoded on a GPU only"),
        (("--decode-workers", "-1"), "-1 decode workers: give 0"),
        (("--sample-memory", "0"), "--sample-memory 0: give at least 1 MB"),
        (("--label-column", "fine"), "names a column of labels ('fine'), which only datasets of"),
    ],
)
def test_decoding_that_a_worker_cannot_do_is_one_sentence(
    options: tuple[str, ...], reason: str, run: Run, local_ray: None, tmp_path: Path
) -> None:
    data = f"imagefolder:{colour_folder(tmp_path / 'photos', 1)}"
    common = ("--store", tmp_path / "s", "--dataset", data, "--model", MODEL)
    outcome = run("extract", *common, "--gpus-per-worker", "0", *options)
    assert outcome.status == 2, outcome.err
    assert "Traceback" not in outcome.err
    assert reason in outcome.err.strip().splitlines()[-1]


def test_decode_workers_change_no_result(run: Run, local_ray: None, tmp_path: Path) -> None:
    data = f"imagefolder:{colour_folder(tmp_path / 'photos', 1)}"
    common = ("--store", tmp_path / "s", "--dataset", data, "--model", MODEL, "--json")
    first = run("extract", *common, "--decode-workers", "0").json
    second = run("extract", *common, "--decode-workers", "3").json
    assert first["features"] == second["features"], "the same fingerprint"
    assert sum(step["blocks"] for step in second["steps"]) == 0, "so nothing is left to do"
