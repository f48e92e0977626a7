"""A store that the code of ba43c66 made, before the modules were moved, is read and gone on with.

`tests/data/make_study_store.sh` made it, with that code, and what its commands said of it. Results,
fingerprints and numbers may not change, whatever the release. CSV, JSON and LaTeX are those of the
old code byte by byte, but for the few words of `REWORDED`; Markdown tables, laid out anew since,
have the same cells. Its results.json are of schema version 1.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from regroup.attacks.pgd.spec import PGDSpec
from regroup.attacks.presets import PRESETS
from regroup_cluster.session import SessionConfig, ray_session
from regroup_pipelines.results.records import StudyResults
from regroup_pipelines.results.stored import parse_results
from tests.kept_workers import kept_workers
from tests.store_compat.old_store import (
    EXPECTED,
    OPTIONS,
    OldStore,
    contents,
    copied,
    loaded,
)

COMPARED = (".csv", ".json", ".tex")
# Words that have changed since, and what they were.
REWORDED = {
    "seconds per image": "seconds an image",
    "time per image": "time an image",
    "not available": "not at hand",
    "measured minus paper": "measured less paper",
    "the two rows count different images": "the two are not of the same images",
    "last k taps, alternating on": "last k taps, in turn on",
    "stored when measured: unlike every other table, they differ when measured again.": (
        "kept since they were measured: taken again they differ, unlike every other table."
    ),
    "are not counted.": "count nowhere.",
}
WHOLE_NOTE = re.compile(r"the (\d+) correctly classified ones by their attacked image")
BORDA = sorted(path.name for path in EXPECTED.glob("rescore-borda-*.json"))
# Votes computed on another processor may differ where two classes have nearly the same sum.
NEAR_TIES = 2


def reworded(path: str, content: bytes) -> bytes:
    """A file as the old code worded it, and laid out the JSON of a study's folder."""
    text = content.decode()
    for now, before in REWORDED.items():
        text = text.replace(now, before)
    text = WHOLE_NOTE.sub(r"\1 that it gets right when clean by their attacked image", text)
    if path.endswith(".json") and not path.startswith("report/"):
        text = json.dumps(json.loads(text), indent=2) + "\n"
    if path.endswith("table-6.tex"):  # its caption had no full stop
        text = text.replace(".}\n\\label", "}\n\\label")
    return text.encode()


def hashes(folder: Path, name: str) -> dict[str, str]:
    """Hashes of the CSV, JSON and LaTeX that a command wrote, but for results.json."""
    return {
        f"{name}/{path}": hashlib.sha256(reworded(f"{name}/{path}", content)).hexdigest()
        for path, content in contents(folder).items()
        if path != "results.json" and path.endswith(COMPARED)
    }


def expected_hashes(prefix: str) -> dict[str, str]:
    """Hashes of the files that the old code wrote below `prefix`, such as "small/"."""
    lines = (EXPECTED / "files.sha256").read_text().splitlines()
    found = {path: digest for digest, path in (line.split("  ", 1) for line in lines)}
    return {
        path: digest
        for path, digest in found.items()
        if path.startswith(prefix) and path.endswith(COMPARED)
    }


Line = dict[str, str]


def markdown_lines(text: str) -> list[Line]:
    """The lines of the first table of a Markdown file: cells by their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    heads, _, *rows = [line.strip("| ").split(" | ") for line in lines]
    return [dict(zip(heads, row, strict=True)) for row in rows]


def k_cells(lines: list[Line]) -> dict[tuple[str, str, str], str]:
    """The cells of a table of k by k, signs and images, whether the signs are lines or columns."""
    found = {}
    for line in lines:
        for head, cell in line.items():
            if head not in ("k", "signs"):
                images, _, signs = head.partition(", ")
                found[line["k"], signs or line["signs"], images] = cell
    return found


def assert_same_cells(name: str, now: str, before: str) -> None:
    """Two Markdown files have the same cells, in whatever order."""
    found = markdown_lines(reworded(name, now.encode()).decode())
    expected = markdown_lines(before)
    assert expected
    if name == "k.md":
        assert k_cells(found) == k_cells(expected)
    else:
        assert found == expected, name


def assert_same_table(path: Path, before: bytes) -> None:
    now = reworded(path.name, path.read_bytes())
    if path.suffix == ".md":
        assert_same_cells(path.name, now.decode(), before.decode())
    else:
        assert now == before, path.name


def without_cost(results: dict[str, Any]) -> StudyResults:
    """The records of results of whatever schema version."""
    return parse_results(results, "results").without_cost()


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `regroup rescore`, whose accuracies stood among its other keys."""
    return {**{key: row[key] for key in ("k", "signs")}, **row["accuracy"]}


def attacks_found(old: OldStore, *options: str) -> set[str]:
    """The attacks of the study `small` that its dry run finds in the store."""
    planned = old.say("run", "small.toml", "--dry-run", "--gpus-per-worker", 0, *options)["plan"]
    return {line["ref"] for line in planned if line["step"].startswith("attack") and line["done"]}


def blocks(steps: list[dict[str, Any]]) -> dict[str, int]:
    """How many blocks were computed, by the step, of the steps that computed any."""
    return {step["step"]: step["blocks"] for step in steps if step["blocks"]}


# The step ratio that PGD had in both protocols; a study that gives it finds what it had made.
FORMER_RATIO = 1 / 30


@pytest.fixture
def former_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """PGD takes the steps of the old code where a study gives none."""
    for name in ("table2-pgd-4", "table1-pgd-16-budget"):
        former = replace(PRESETS[name], step_ratio=FORMER_RATIO)  # type: ignore[call-arg]
        monkeypatch.setitem(PRESETS, name, former)
    monkeypatch.setattr(PGDSpec, "_own_ratio", lambda _: FORMER_RATIO)


@pytest.fixture
def copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> OldStore:
    """The copy as this release finds it, with the scikit-learn that is installed."""
    # Networks of one's own were described without their source then: see test_made_anew.py.
    monkeypatch.setattr("regroup.models.custom.describe_own", lambda *_: {})
    return copied(tmp_path, monkeypatch, capfd)


@pytest.fixture
def unstamped(copy: OldStore, former_steps: None) -> OldStore:
    """The copy with the attacks of the old code: its digits count as looked at anew."""
    return copy


@pytest.fixture
def stamped(copy: OldStore, monkeypatch: pytest.MonkeyPatch) -> OldStore:
    """The copy, with digits of the scikit-learn that the listings are of."""
    part = next(copy.store.glob("listings/digits-val-*/part-00000.parquet"))
    (stamp,) = set(pq.read_table(part, columns=["stamp"])["stamp"].to_pylist())
    monkeypatch.setattr("sklearn.__version__", stamp.removeprefix("scikit-learn "))
    return copy


@pytest.fixture
def old(stamped: OldStore, former_steps: None) -> OldStore:
    """The copy, with those digits, and with the attacks of the old code."""
    return stamped


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with kept_workers(), ray_session(SessionConfig(None)):
        yield


def test_every_element_is_listed(old: OldStore) -> None:
    expected = loaded(EXPECTED / "ls.json")
    assert old.elements() == expected["elements"]
    assert old.say("ls")["runs"] == expected["runs"]
    assert {element["kind"] for element in old.elements()} == {
        "listings", "digests", "indexes", "features", "adversarials", "banks", "votes"
    }  # fmt: skip


NOTES = [("note", "gap"), ("note", "unnamed"), ("note", "run")]


def found_elements(old: OldStore) -> list[dict[str, Any]]:
    """The elements that are written block by block."""
    kinds = ("digests", "features", "adversarials", "votes")
    return [element for element in old.elements() if element["kind"] in kinds]


def test_nothing_is_damaged(old: OldStore) -> None:
    """Every fingerprint, seal and checksum; a note of the block that is missing.

    Two notes since: its records do not state their element, those of its runs have no checksum.
    """
    found = old.say("verify")["findings"]
    (missing,) = loaded(EXPECTED / "verify.json")["findings"]
    assert found[0] == missing
    assert [(each["level"], each["what"]) for each in found] == NOTES
    assert found[1]["problem"].startswith(f"{len(found_elements(old))} elements have commits")


@pytest.mark.parametrize("name", OPTIONS)
def test_a_study_is_found_whole(old: OldStore, name: str) -> None:
    """Nothing is computed, no file of the store is touched, every table is the old one."""
    before = contents(old.store)
    results = old.run_study(name)
    assert blocks(results["steps"]) == {}
    assert all(step["skipped"] for step in results["steps"])
    assert results["forward_passes"] == 0
    assert results["schema_version"] == 2
    assert without_cost(results) == without_cost(old.kept_results(name))
    assert contents(old.store) == before, "results of version 1 are left as they are"
    output = old.folder / "out" / name
    assert without_cost(loaded(output / "results.json")) == without_cost(old.kept_results(name))
    for table, text in contents(EXPECTED / f"tables-{name}").items():
        assert_same_table(output / "preactivation-paper" / table, text)
    assert hashes(output, name) == expected_hashes(f"{name}/")


def test_a_dry_run_plans_nothing(old: OldStore) -> None:
    planned = old.say("run", "small.toml", "--dry-run", "--gpus-per-worker", 0)
    assert all(line["done"] for line in planned["plan"])
    made = {element["ref"] for element in old.elements() if element["kind"] == "adversarials"}
    held = {line["ref"] for line in planned["plan"]}
    assert len(made - held) == 1, "that of the other study"


def test_the_former_step_ratio_is_given_by_its_number(stamped: OldStore) -> None:
    """What the old code attacked is found again by the number that it used, and only by it."""
    keys = ("attacks.least", "attacks.strong", "sweeps.levels")
    given = [f"--set={key}.parameters.step_ratio=1/30" for key in keys]
    assert len(attacks_found(stamped, *given)) == 4
    assert attacks_found(stamped) == set()


@pytest.mark.parametrize("name", BORDA)
def test_rescoring_finds_the_votes(old: OldStore, name: str) -> None:
    expected, before = loaded(EXPECTED / name), contents(old.store)
    told = old.say("rescore", "--bank", expected["bank"])
    assert told["bank"] == expected["bank"]
    assert [flat(row) for row in told["rows"]] == expected["rows"]
    assert (told["cost"]["forward_passes"], blocks(told["steps"])) == (0, {})
    assert [step["ref"] for step in told["steps"]] == [step["ref"] for step in expected["steps"]]
    assert contents(old.store) == before


def test_the_report_has_the_old_downloads(old: OldStore) -> None:
    told = old.say("report", "--output", "out/report")
    assert (told["studies"], told["forward_passes"]) == (["gaps", "small"], 0)
    report = old.folder / "out" / "report"
    found = {
        path: digest
        for name in OPTIONS
        for path, digest in hashes(report / name / "data", f"report/{name}/data").items()
    }
    assert found == expected_hashes("report/")


@pytest.mark.parametrize("name", OPTIONS)
def test_every_sample_is_exported_as_it_was(old: OldStore, name: str) -> None:
    old.say("export", "--study", name, "--format", "parquet", "--output", "out")
    file = f"{name}-samples.parquet"
    exported, expected = (
        pq.read_table(folder / file).to_pandas()
        for folder in (old.folder / "out", EXPECTED / "export")
    )
    pd.testing.assert_frame_equal(exported, expected)


def test_what_no_study_refers_to(old: OldStore) -> None:
    told, expected = old.say("gc"), loaded(EXPECTED / "gc.json")
    assert told["kept"] == expected["kept"]
    found, refs = (
        [(each["kind"], each["ref"], each["size_bytes"]) for each in said["unreferenced"]]
        for said in (told, expected)
    )
    assert found == refs
    assert told["unfinished"] == told["unreadable"] == []


def test_a_block_that_is_gone_is_voted_again(old: OldStore, local_ray: None) -> None:
    """An element of the old code is gone on with: its other blocks stay, its fingerprint too."""
    listed, before = old.elements(), contents(old.store)
    ref = old.kept_results("small")["evaluations"][0]["votes"]["least"]
    votes = old.store / "votes" / ref
    for path in ("summary.json", "commits/00001.json", "samples/part-00001.parquet"):
        (votes / path).unlink()
    for array in votes.glob("*.zarr"):
        shutil.rmtree(array / "c" / "1")
    results = old.run_study("small")
    assert list(blocks(results["steps"]).values()) == [1]
    assert results["forward_passes"] == 0
    assert without_cost(results) == without_cost(old.kept_results("small"))
    after = contents(old.store)
    sizes = {"size_bytes": 0}
    assert [{**e, **sizes} for e in old.elements()] == [{**e, **sizes} for e in listed]
    changed = {path for path in before if after[path] != before[path]}
    assert {path.split("/")[1] for path in changed} <= {ref}
    found = old.say("verify")["findings"]
    assert [(each["level"], each["what"]) for each in found] == NOTES


def test_another_rule_is_scored_from_the_old_features(old: OldStore, local_ray: None) -> None:
    (file,) = EXPECTED.glob("rescore-plurality-*.json")
    expected = loaded(file)
    told = old.say("rescore", "--bank", expected["bank"], "--rule", "plurality", "--workers", 1)
    assert told["cost"]["forward_passes"] == 0
    assert blocks(told["steps"]) == blocks(expected["steps"])
    assert [step["ref"] for step in told["steps"]] == [step["ref"] for step in expected["steps"]]
    for found, row in zip(told["rows"], expected["rows"], strict=True):
        assert flat(found).keys() == row.keys()
        assert (found["k"], found["signs"]) == (row["k"], row["signs"])
        for images, cell in found["accuracy"].items():
            assert cell["total"] == row[images]["total"]
            assert abs(cell["correct"] - row[images]["correct"]) <= NEAR_TIES


def test_digits_looked_at_anew_are_those_of_the_store(
    unstamped: OldStore, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed and digested again, to the same indexes: all that was made of them is found."""
    monkeypatch.setattr("sklearn.__version__", "another")
    before = {f"{e['kind']}/{e['ref']}" for e in unstamped.elements()}
    results = unstamped.run_study("small")
    assert blocks(results["steps"]) == {"digest digits-val": 1, "digest digits-train": 2}
    assert results["forward_passes"] == 0
    assert without_cost(results) == without_cost(unstamped.kept_results("small"))
    after = {f"{e['kind']}/{e['ref']}" for e in unstamped.elements()}
    assert before < after
    new = sorted(ref.split("/")[0] for ref in after - before)
    assert new == ["digests", "digests", "listings", "listings"]
