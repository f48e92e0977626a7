"""What is damaged, exchanged or of a later release is never left out of an answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from regroup_pipelines.commands import demo
from regroup_pipelines.errors import UsageError
from regroup_pipelines.render.study_files import write_report
from regroup_pipelines.results.recount import same_counts
from regroup_store.format.fingerprint import seal, unseal
from tests.pipelines.commands.test_verify import only
from tests.pipelines.conftest import FinishedDemo, Run
from tests.store.test_damage import flip

STRONG = "features/digits-val-digits-cnn-pgd-budget-*"
BANK = "digits-train-digits-cnn"


def flipped(path: Path) -> None:
    path.write_bytes(flip(path.read_bytes()))


def of_a_newer_release(path: Path) -> None:
    path.write_bytes(seal({**unseal(path.read_bytes(), ""), "schema_version": 9}))


def behind_a_link(path: Path) -> None:
    elsewhere = path.parent.parent.parent.parent / "elsewhere.json"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


HOWS = [flipped, Path.unlink, of_a_newer_release, behind_a_link]


@pytest.mark.parametrize("how", HOWS)
def test_no_listing_or_table_leaves_an_element_out(
    copied: Path, run: Run, how: Callable[[Path], None]
) -> None:
    manifest = only(copied, f"{STRONG}/manifest.json")
    how(manifest)
    ref = manifest.parent.name
    rescored = run("rescore", "--store", copied, "--bank", BANK, "--json")
    assert rescored.status == 1
    assert f"1 elements cannot be read: features/{ref}: " in rescored.err
    assert "name others with --features" in rescored.err
    listed = run("ls", "--store", copied, "--json")
    assert listed.status == 1
    assert f"features/{ref}" in listed.err
    (info,) = [each for each in listed.json["elements"] if each["ref"] == ref]
    assert info["problem"]
    assert run("ls", "--store", copied).out.count("pgd-budget") >= 2
    children = run("inspect", f"banks/{BANK}", "--store", copied, "--children")
    assert (children.status, f"features/{ref}" in children.err) == (1, True)
    clean, budget = "features/digits-val-digits-cnn", f"features/{ref}"
    assert run("diff", clean, budget, "--store", copied).status != 0
    assert run("inspect", budget, "--store", copied).status != 0


def exchanged(store: Path, *, stated: bool) -> list[Path]:
    """Exchange the summaries of the votes on two attacks; older ones state no element."""
    pair = [only(store, f"votes/*-pgd-{name}-*/summary.json") for name in ("budget", "minimal")]
    records = [unseal(path.read_bytes(), "") for path in pair]
    for path, record in zip(pair, reversed(records), strict=True):
        path.write_bytes(
            seal({key: value for key, value in record.items() if stated or key != "element"})
        )
    return pair


def test_exchanged_summaries_are_named_and_not_printed(copied: Path, run: Run) -> None:
    keys = [path.relative_to(copied).as_posix() for path in exchanged(copied, stated=True)]
    found = run("verify", "--store", copied, "--json")
    bad = {f["path"] for f in found.json["findings"] if f["level"] == "damaged"}
    assert (found.status, bad) == (1, set(keys))
    rescored = run("rescore", "--store", copied, "--bank", BANK)
    assert (rescored.status, rescored.out) == (1, "")
    assert "is the record of another element" in rescored.err
    (command,) = run("repair", "--store", copied, "--json").json["commands"][:1]
    assert command.startswith(f"regroup rescore --store {copied}")
    assert run("rescore", "--store", copied, "--bank", BANK, "--json").status == 0
    assert run("verify", "--store", copied).status == 0


def test_summaries_are_counted_again(copied: Path, run: Run) -> None:
    """Those of before state no element: their counts give them away."""
    exchanged(copied, stated=False)
    features = only(copied, f"{STRONG}/summary.json")
    record = unseal(features.read_bytes(), "")
    features.write_bytes(seal({**record, "failed": 1}))
    attacked = only(copied, "adversarials/*-pgd-minimal-*/summary.json")
    record = unseal(attacked.read_bytes(), "")
    attacked.write_bytes(seal({**record, "mean_linf": float(str(record["mean_linf"])) / 2}))
    found = run("verify", "--store", copied, "--json")
    problems = {f["path"]: f["problem"] for f in found.json["findings"] if f["what"] == "summary"}
    assert len(problems) == 4
    told = problems[features.relative_to(copied).as_posix()]
    assert "states failed 1, but its blocks hold 0" in told
    assert "states mean_linf" in problems[attacked.relative_to(copied).as_posix()]


def test_counts_are_compared_exactly_and_means_to_nine_digits() -> None:
    assert same_counts({"a": [1, 2], "b": 0.1 + 0.2}, {"a": [1, 2], "b": 0.3, "c": None})
    assert not same_counts({"a": [1, 2]}, {"a": [1, 3]})
    assert not same_counts({"a": [1, 2]}, {"a": [1]})
    assert not same_counts(0.3, 0.3001)
    assert not same_counts(None, 0)


def test_damaged_results_are_named_and_replaced_by_the_next_run(
    copied: Path, finished_demo: FinishedDemo, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    results = copied / "studies" / "demo" / "results.json"
    whole = results.read_bytes()
    results.write_bytes(whole.replace(b'"total": 48', b'"total": 49', 1))
    assert results.read_bytes() != whole
    found = run("verify", "--store", copied)
    assert (found.status, "studies/demo/results.json" in found.err) == (1, True)
    for command in (("report", "-o"), ("export", "--study", "demo", "-o")):
        outcome = run(*command, copied.parent / "out", "--store", copied)
        assert (outcome.status, "studies/demo/results.json" in outcome.err) == (1, True)
    repaired = run("repair", "--store", copied)
    assert repaired.status == 0
    assert "studies/demo: its results are replaced by its next run" in repaired.out
    assert f"regroup run --store {copied} demo" in repaired.out
    assert results.exists(), "gc must know what they name"
    assert run("gc", "--store", copied, "--delete", "--yes").status == 1
    output = shutil.copytree(finished_demo.config.output, copied.parent / "again")
    demo.main(replace(finished_demo.config, store=str(copied), output=str(output)))
    assert "studies/demo/results.json" in capfd.readouterr().err
    assert json.loads(results.read_bytes())["results"]["study"] == "demo"
    assert run("verify", "--store", copied).status == 0


@pytest.mark.parametrize(
    "name", ["votes/*-pgd-budget-*/true_rank.zarr/c/0/0/0", f"banks/{BANK}-*/manifest.json"]
)
def test_a_report_whose_pages_say_damaged_ends_with_1(copied: Path, run: Run, name: str) -> None:
    flipped(only(copied, name))
    outcome = run("report", "--store", copied, "-o", copied.parent / "report", "--images", "2")
    assert outcome.status == 1
    assert "the report is written, but its pages lack what is damaged" in outcome.err
    assert name.split("/")[0] in outcome.err
    assert (copied.parent / "report" / "demo" / "index.html").exists()


def test_a_damaged_record_of_a_run_is_named(copied: Path, run: Run) -> None:
    record = next(copied.glob("runs/*/run.json"))
    record.write_text(record.read_text().replace('"seconds": ', '"seconds": 1', 1))
    key = record.relative_to(copied).as_posix()
    outcome = run("report", "--store", copied, "-o", copied.parent / "report", "--images", "2")
    assert (outcome.status, key in outcome.err) == (1, True)
    assert (run("verify", "--store", copied).status, record.exists()) == (1, True)
    assert run("repair", "--store", copied).status == 0
    assert (run("verify", "--store", copied).status, record.exists()) == (0, False)


@pytest.mark.parametrize("name", ["results.json", "preactivation-paper", "digits-cnn.safetensors"])
def test_nothing_is_written_through_a_link_in_the_output_folder(
    finished_demo: FinishedDemo, tmp_path: Path, name: str
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "mine").write_text("mine")
    output = tmp_path / "out"
    output.mkdir()
    (output / name).symlink_to(victim if "-" in name else victim / "mine")
    results = finished_demo.results
    write = (
        (lambda: demo.main(replace(finished_demo.config, output=str(output))))
        if name.endswith("safetensors")
        else (lambda: write_report(results, results.settings.report, output))
    )
    with pytest.raises(UsageError, match="is a link, and nothing is written outside"):
        write()
    assert [path.name for path in victim.iterdir()] == ["mine"]
    assert (victim / "mine").read_text() == "mine"
