"""gc, inspect, diff and export over what `regroup run` itself left in a store."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from regroup_pipelines.commands.run import main
from regroup_pipelines.configs.studies import RunConfig
from regroup_pipelines.results.records import StudyResults
from regroup_store.format.store import open_store
from tests.pipelines.colours import LATER, STRONG, colour_folder, study_text
from tests.pipelines.commands.test_export import assert_same_counts
from tests.pipelines.conftest import Run
from tests.pipelines.records import attacked, study_results
from tests.store.elements import snapshot

STUDY = study_text(STRONG, LATER)


@dataclass(frozen=True)
class Finished:
    config: RunConfig
    results: StudyResults


@pytest.fixture(scope="module")
def finished(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("after")
    colour_folder(folder / "train", images=3)
    colour_folder(folder / "val", images=4)
    (folder / "val" / "n00000001" / "torn.png").write_bytes(b"no image")
    (folder / "colours.toml").write_text(STUDY)
    config = RunConfig(
        study=str(folder / "colours.toml"), store=str(folder / "store"), data=str(folder),
        output=str(folder / "out"), json=True, workers=1,
    )  # fmt: skip
    return Finished(config, study_results(main(config)))


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> str:
    return str(shutil.copytree(finished.config.store, tmp_path / "store"))


def test_everything_of_a_study_is_referred_to(copied: str, run: Run) -> None:
    told = run("gc", "--store", copied, "--json").json
    assert told["unreferenced"] == told["unfinished"] == []
    kinds = {place.split("/")[0] for place in told["kept"]}
    assert kinds == {
        "listings", "digests", "indexes", "features", "adversarials", "banks", "votes"
    }  # fmt: skip


def test_what_another_study_made_goes_and_the_first_is_found_whole(
    finished: Finished, copied: str, run: Run, tmp_path: Path
) -> None:
    where = ("--data", finished.config.data, "--output", tmp_path / "out", "--workers", "1")
    args = ("run", finished.config.study, "--store", copied, *where, "--json")
    before = {e.ref for e in open_store(copied).elements()}
    other = run(*args, "--set", "attacks.strong.epsilon=100/255", "--set", "name=other")
    assert other.status == 0, other.err
    added = {e.ref for e in open_store(copied).elements()} - before
    assert len(added) == 3, "an attack, its features, its votes"
    assert run("gc", "--store", copied, "--json").json["unreferenced"] == []
    (Path(copied) / "studies" / "other" / "results.json").unlink()
    told = run("gc", "--store", copied, "--delete", "--yes", "--json").json
    assert {element["ref"] for element in told["unreferenced"]} == added
    assert {e.ref for e in open_store(copied).elements()} == before
    assert run("verify", "--store", copied).out.strip() == "Nothing is damaged."
    left = {k: v for k, v in snapshot(open_store(copied)).items() if not k.startswith("runs/")}
    again = run(*args)
    assert again.status == 0
    assert (again.json["forward_passes"], sum(s["blocks"] for s in again.json["steps"])) == (0, 0)
    after = snapshot(open_store(copied))
    assert {key: after[key] for key in left} == left


def test_rows_count_what_the_tables_say(finished: Finished, run: Run, tmp_path: Path) -> None:
    done = run(
        "export", "--store", finished.config.store, "--study", "colours", "-o", tmp_path, "--json"
    )
    assert done.status == 0, done.err
    (evaluation,) = finished.results.evaluations
    for ending in ("parquet", "csv"):
        assert_same_counts(tmp_path / f"colours-samples.{ending}", evaluation)
    rows = pd.read_parquet(tmp_path / "colours-samples.parquet")
    clean = rows[rows["images"] == "clean"]
    assert len(clean) == 13
    (torn,) = clean[clean["status"] == "failed"].to_dict("records")
    assert torn["sample_id"].endswith("torn.png")
    assert "torn.png" in torn["error"] or "image" in torn["error"]
    assert torn["class_name"] == "n00000001"
    made = rows[rows["images"] == "strong"]
    assert made["attack"].unique().tolist() == [attacked(finished.results)["strong"].title]
    assert (made["linf"] <= 200 / 255 + 1e-6).all()
    assert done.json["not_run"] == {"later": "the study skips it"}


def test_the_votes_come_from_the_dataset(finished: Finished, run: Run) -> None:
    (evaluation,) = finished.results.evaluations
    store, votes = finished.config.store, evaluation.votes
    told = run("inspect", f"votes/{votes['strong']}", "--store", store).out
    for kind in ("features", "adversarials", "indexes", "banks"):
        assert f"{kind}/" in told
    assert "not in this store" not in told
    differ = run(
        "diff", f"votes/{votes['clean']}", f"votes/{votes['strong']}", "--store", store, "--json"
    ).json
    paths = {tuple(found["path"]) for found in differ["differences"]}
    assert paths == {("features", "source.index"), ("features", "source.adversarials")}
